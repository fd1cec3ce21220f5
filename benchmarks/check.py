"""How long `memplan check` of 20 entries takes beside a bare Python, and what a failing entry's remedies add.

    python benchmarks/check.py [ROUNDS]

Every round starts one process of each kind, so that all of them meet the same machine; medians are compared, by the
clock and in times of a bare Python. Exits 1 where a bound is missed. Run it on a quiet machine; what is installed and
how is said in cold_start.py.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

from cold_start import cold_starts, install, verdict

CHECK_BOUND = 0.5  # seconds
ENTRIES = 20

HEAD = "schema_version = 1\n[defaults]\nprecision = 'bf16'\n"
# 20 different replays on two generations of cards: nothing is shared but the traces' code.
PASSING = f"""{HEAD}
[matrix.cards]
models = ["llama-3.2-1b", "llama-3.2-3b"]
devices = ["h100-80gb", "a100-80gb"]
sequence_length = [512, 1024, 1536, 2048, 2560]
"""
# On one generation each replay serves two cards.
SHARED = PASSING.replace("h100-80gb", "a100-40gb")
ONE = f"{HEAD}[checks.one]\nmodel = 'llama-3.2-1b'\ndevice = 'h100-80gb'\nsequence_length = 1024\n"
FAILING = ONE.replace("1024", "131072")


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        python, command = install(Path(folder))

        def check(name: str, text: str) -> list[str]:
            path = Path(folder, f"{name}.toml")
            path.write_text(text, encoding="utf-8")
            return [str(command), "check", "--report-only", str(path)]

        processes = {
            "python -c pass": [str(python), "-c", "pass"],
            "memplan check, 1 entry": check("one", ONE),
            "memplan check, 1 that fails": check("failing", FAILING),
            f"memplan check, {ENTRIES} entries": check("passing", PASSING),
            f"{ENTRIES} entries, half shared": check("shared", SHARED),
        }
        medians = cold_starts(processes, rounds)
    bare = medians["python -c pass"]
    taken = medians[f"memplan check, {ENTRIES} entries"] / 1e3
    print(f"checks, medians of {rounds} interleaved rounds, Python {platform.python_version()}")
    print(f"{'':30}{'ms':>8}{'x bare':>9}")
    for name, median in medians.items():
        print(f"{name:30}{median:8.1f}{median / bare:9.2f}")
    print(f"\n{'':30}{'s':>8}{'':9}{'bound':>8}")
    print(f"{f'{ENTRIES} entries':30}{taken:8.3f}{'':9}{verdict(taken, CHECK_BOUND)}")
    return int(taken > CHECK_BOUND)


if __name__ == "__main__":
    sys.exit(main())
