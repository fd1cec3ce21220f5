"""How long a cold `memplan estimate` takes beside a bare Python, and the engine beside the clock.

    python benchmarks/cold_start.py [ROUNDS]

Every round starts one process of each kind, so that all of them meet the same machine; medians are compared. Exits 1
where a bound is missed. Run it with a Python that has memplan installed, on a quiet machine.

The processes run in an environment made for the occasion, with a copy of the package as a wheel would install it. The
import hook of an editable install makes every Python of its environment start three times slower, the bare one too:
all ratios would look fine.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

import memplan

TEXT_BOUND, JSON_BOUND, CARD_BOUND = 9.5, 7.5, 20.0  # times a bare Python
ENGINE_BOUND = 5.0  # milliseconds
WARM_UPS = 3  # the first runs write byte code and fill the file cache
ENGINE_ROUNDS = 25

ESTIMATE = ["estimate", "gpt2", "--micro-batch-size", "1", "--sequence-length", "1024", "--attention", "naive"]
CARD = [
    *["estimate", "llama-3-8b", "--micro-batch-size", "1", "--sequence-length", "4096", "--precision", "bf16"],
    *["--device", "h100-80gb"],
]  # the caching allocator is replayed, over every layer

# What pip writes for a console script.
SCRIPT = """#!{python}
import re
import sys
from memplan.__main__ import main
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\\.pyw|\\.exe)?$", "", sys.argv[0])
    sys.exit(main())
"""


def install(folder: Path) -> tuple[Path, Path]:
    """An environment in `folder` with memplan in it; its Python and its `memplan` command."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    assert memplan.__file__ is not None
    source = Path(memplan.__file__).parent
    shutil.copytree(source, packages / "memplan", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source.parent / "profiles", packages / "memplan" / "profiles_data")
    # Typer and rich come from the environment that runs this; the .pth files there are not read from here.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    command = folder / "bin" / "memplan"
    command.write_text(SCRIPT.format(python=python), encoding="utf-8")
    command.chmod(0o755)
    return python, command


def milliseconds_of(command: list[str]) -> float:
    # A wheel brings its byte code along; here the first run writes it, which the environment may not forbid.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1e3


def cold_starts(processes: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """The median milliseconds of each process."""
    taken: dict[str, list[float]] = {name: [] for name in processes}
    for number in range(WARM_UPS + rounds):
        for name, command in processes.items():
            elapsed = milliseconds_of(command)
            if number >= WARM_UPS:
                taken[name].append(elapsed)
    return {name: statistics.median(times) for name, times in taken.items()}


def engine() -> float:
    """The median milliseconds of one estimate of llama-3-70b (80 layers) in this process."""
    model = memplan.load_model("llama-3-70b")
    device = memplan.load_device("cpu")
    run = memplan.TrainingRun(sequence_length=8192, attention="naive")
    taken = []
    for number in range(WARM_UPS + ENGINE_ROUNDS):
        start = time.perf_counter()
        memplan.estimate(model, run, device)
        if number >= WARM_UPS:
            taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


def verdict(value: float, bound: float | None) -> str:
    return "" if bound is None else f"{bound:8.2f}  {'ok' if value <= bound else 'MISSED'}"


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    with tempfile.TemporaryDirectory() as folder:
        python, command = install(Path(folder))
        processes = {
            "python -c pass": [str(python), "-c", "pass"],
            'python -c "import typer"': [str(python), "-c", "import typer"],
            "memplan estimate gpt2": [str(command), *ESTIMATE],
            "memplan estimate gpt2 --json": [str(command), *ESTIMATE, "--json"],
            "memplan estimate, on a card": [str(command), *CARD],
        }
        medians = cold_starts(processes, rounds)
    bounds = {
        "memplan estimate gpt2": TEXT_BOUND,
        "memplan estimate gpt2 --json": JSON_BOUND,
        "memplan estimate, on a card": CARD_BOUND,
    }
    ratios = {name: median / medians["python -c pass"] for name, median in medians.items()}
    print(f"cold start, medians of {rounds} interleaved rounds, Python {platform.python_version()}")
    print(f"{'':30}{'ms':>8}{'x bare':>9}{'bound':>8}")
    for name, median in medians.items():
        print(f"{name:30}{median:8.1f}{ratios[name]:9.2f}{verdict(ratios[name], bounds.get(name))}")
    elapsed = engine()
    print(f"\nin process, median of {ENGINE_ROUNDS}")
    print(f"{'':30}{'ms':>8}{'':9}{'bound':>8}")
    print(f"{'llama-3-70b, 80 layers':30}{elapsed:8.2f}{'':9}{verdict(elapsed, ENGINE_BOUND)}")
    return int(elapsed > ENGINE_BOUND or any(ratios[name] > bound for name, bound in bounds.items()))


if __name__ == "__main__":
    sys.exit(main())
