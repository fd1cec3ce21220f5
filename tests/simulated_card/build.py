"""Make the libraries of the simulated card for the CUDA build of PyTorch that this Python has installed.

    python tests/simulated_card/build.py HEADERS FOLDER

Needs gcc, binutils, and CUDA's headers, which the packages that README.md names have. Every function that PyTorch
imports from one of CUDA's libraries is there: written in card.c or libraries.c, or returning 0.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
CUDA_LIBRARY = re.compile(r"lib(cu|nv|nccl)")
PREFIXES = {
    "libcudart": r"cuda[A-Z]|__cuda", "libcuda.so": r"cu(?!da|File|pti|blas|dnn|sparse|solver|fft|rand)[A-Z]",
    "libcublasLt": r"cublasLt", "libcublas.": r"cublas(?!Lt)", "libcudnn": r"cudnn", "libcusparseLt": r"cusparseLt",
    "libcusparse.": r"cusparse(?!Lt)", "libcusolver": r"cusolver", "libcufft": r"cufft", "libcurand": r"curand",
    "libnccl": r"nccl", "libcufile": r"cuFile", "libnvshmem": r"nvshmem", "libcupti": r"cupti", "libnvrtc": r"nvrtc",
    "libnvToolsExt": r"nvtx", "libnvJitLink": r"nvJitLink", "libcudss": r"cudss",
}  # fmt: skip
"""Library -> how the names of its functions begin."""


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def imports_of(libraries: list[Path]) -> tuple[set[str], dict[str, str]]:
    """CUDA's libraries that PyTorch's need, and all functions those import, with the version they ask for."""
    own = {library.name for library in libraries}
    needed: set[str] = set()
    functions: dict[str, str] = {}
    for library in libraries:
        needed |= set(re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", library))) - own
        for line in output("nm", "-D", "--undefined-only", library).splitlines():
            name, _, version = line.split()[-1].partition("@")
            functions.setdefault(name, version.lstrip("@"))
    return {name for name in needed if CUDA_LIBRARY.match(name)}, functions


def build(soname: str, functions: dict[str, str], includes: list[Path], folder: Path) -> None:
    """One library with these functions."""
    source = HERE / ("card.c" if soname.startswith("libcudart") else "libraries.c")
    compiled = folder / f"{soname}.o"
    paths = [f"-I{include}" for include in includes]
    subprocess.run(["gcc", "-w", "-O1", "-fPIC", *paths, "-c", source, "-o", compiled], check=True)
    written = {line.split()[-1] for line in output("nm", "--defined-only", "-g", compiled).splitlines()}
    others = [f"--localize-symbol={name}" for name in written - functions.keys()]
    subprocess.run(["objcopy", *others, compiled], check=True)
    silent = folder / f"{soname}.s"
    bodies = "".join(
        f".globl {name}\n.type {name},@function\n{name}: xorl %eax,%eax\n ret\n" for name in functions.keys() - written
    )
    silent.write_text(f'.text\n{bodies}.section .note.GNU-stack,"",@progbits\n')
    versions: dict[str, list[str]] = {}
    for name, version in functions.items():
        versions.setdefault(version, []).append(name)
    script = folder / f"{soname}.map"
    named = {version: names for version, names in versions.items() if version}
    script.write_text("".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in named.items()))
    flags = [f"-Wl,-soname,{soname}", *([f"-Wl,--version-script={script}"] if named else [])]
    subprocess.run(["gcc", "-shared", *flags, "-o", folder / soname, compiled, silent, "-lpthread"], check=True)
    for file in (compiled, silent, script):
        file.unlink()


def main(headers: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    libraries = Path(sysconfig.get_path("purelib"), "torch", "lib")
    needed, functions = imports_of(sorted(libraries.glob("*.so*")))
    includes = sorted(path for path in headers.rglob("include") if path.is_dir())
    for soname in sorted(needed):
        library = max((prefix for prefix in PREFIXES if soname.startswith(prefix)), key=len)
        mine = {name: version for name, version in functions.items() if re.match(PREFIXES[library], name)}
        build(soname, mine, includes, folder)
        print(f"{soname}: {len(mine)} functions")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
