"""The wordings of PyTorch's messages, read. Where each is put together:

- c10/cuda/CUDACachingAllocator.cpp, and c10/xpu/XPUCachingAllocator.cpp after it: "Tried to allocate 2.00 GiB. GPU 0
  has a total capacity of ...", the older "(GPU 0; 79.15 GiB total capacity; ...)", and the oldest with "cached" at its
  end. "total capacty" is what PyTorch 2.1 wrote.
- c10/cuda/CUDAMallocAsyncAllocator.cpp: "Allocation on device 0 would exceed allowed memory", one figure a line.
- aten/src/ATen/mps/MPSAllocator.mm: "MPS backend out of memory (MPS allocated: ...)".
- c10/core/impl/alloc_cpu.cpp: "DefaultCPUAllocator: can't allocate memory: you tried to allocate N bytes".

Logs break lines anywhere, so a blank in a pattern stands for any white space or none.
"""

from __future__ import annotations

import re

from memplan.oom.message import Kind, Message, Process
from memplan.oom.printed import Printed, printed

_BLANK = r"(?:\s|\\[nrt])*"
_SIZE = r"(\d{1,20}(?:\.\d{1,9})?)" + _BLANK + r"(bytes|[KMGT]iB|[KMG]B|B\b)"

MOST = 3000
"""Characters of a message that are looked at; the longest known has about 900, and one more line for each process."""


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("SIZE", _SIZE).replace(" ", _BLANK))


HEAD = _pattern(
    r"(?P<mps>MPS backend out of memory)"
    r"|(?P<async>Allocation on device (?:\d+ )?would exceed allowed memory)"
    r"|(?P<block>Current platform can NOT allocate memory block with size larger than \S+ Tried to allocate (?=\d))"
    r"|(?P<caching>(?:\b[A-Z]{2,5} out of memory[.,:]? )?Tried to allocate (?=\d))"
    r"|(?P<cpu>\w*CPUAllocator: (?:can't allocate|not enough) memory|not enough memory: you tried to allocate (?=\d))"
    r"|(?P<nvml>NVML_SUCCESS == \S[^\n]{0,200}?INTERNAL ASSERT FAILED at \S*CUDACachingAllocator)"
    r"|(?P<library>\b(?:CUBLAS|CUDNN|CUSPARSE|CUSOLVER|CUFFT|CURAND|HIPBLAS|MIOPEN)_\w*ALLOC\w*FAILED)"
    r"|(?P<driver>\b(?:CUDA|HIP) (?:driver |runtime )?error: out of memory|cuda runtime error \(2\) : out of memory"
    r"|\bCUDA_ERROR_OUT_OF_MEMORY)"
    r"|(?P<bare>\b(?:CUDA|HIP|XPU|NPU|MLU|MUSA) out of memory(?=[.]?[\x20\t]*(?:$|\n)))"
)
"""How each message begins; the name of the group is who speaks."""

SIGN = re.compile(
    r"out\s+of\s+memory|ried\s+to\s+allocate|exceed\s+allowed|(?:allocate|enough)\s+memory|ALLOC\w*FAILED"
    r"|OUT_OF_MEMORY|NVML_SUCCESS"
)
"""Text without any of these holds no head: looked for first, which is much faster."""

_FIGURES: dict[str, tuple[re.Pattern[str], ...]] = {
    "asked": (_pattern("Tried to allocate SIZE"), _pattern("Requested : SIZE")),
    "capacity": (
        _pattern("total capaci?ty of SIZE"),
        _pattern("SIZE total capacity"),
        _pattern("Device limit : SIZE"),
    ),
    "free": (
        _pattern("of which SIZE is free"),
        _pattern("SIZE free;"),
        _pattern(r"Free \(according to CUDA\): SIZE"),
    ),
    "this_process": (_pattern("this process has SIZE memory in use"),),
    "allocated": (
        _pattern("allocated memory SIZE is allocated by PyTorch"),
        _pattern("SIZE already allocated"),
        _pattern("MPS allocated: SIZE"),
        _pattern("Currently allocated : SIZE"),
    ),
    "private_pools": (_pattern("with SIZE allocated in private pools"),),
    "unallocated": (_pattern("SIZE is reserved by PyTorch but unallocated"), _pattern(r"SIZE cached\b")),
    "reserved": (_pattern("SIZE reserved in total by PyTorch"),),
    "limit": (_pattern("SIZE allowed;"), _pattern("max allowed: SIZE"), _pattern(r"memory fraction\) : SIZE")),
    "other_allocations": (_pattern("other allocations: SIZE"),),
}
_GPU = (
    _pattern(r"\b(?:GPU|Device|[A-Z]{3,4}) (\d{1,6})(?= has a total| ;)"),
    _pattern(r"Allocation on device (\d{1,6})"),
)
_OTHERS = _pattern(r"Process (\d{1,20}) has SIZE memory in use")
_BYTES = _pattern(r"you tried to allocate (\d{1,20})( bytes| ?GB)?")
_POOL = _pattern(r"on (private|shared) pool")
_CACHED = _pattern(r"SIZE cached\b")
_SUGGESTIONS = (
    (re.compile(r"(PYTORCH_\w*ALLOC_CONF=\s*expandable_segments:True)"), None),
    (re.compile(r"(PYTORCH_MPS_HIGH_WATERMARK_RATIO=0\.0)"), None),
    (_pattern("try setting (max_split_size_mb)"), "max_split_size_mb in PYTORCH_CUDA_ALLOC_CONF"),
    (_pattern("Please use `(empty_cache)`"), "empty_cache()"),
    (_pattern(r"(Buy new RAM)"), "more RAM"),
)


def beginnings(text: str) -> list[re.Match[str]]:
    """Where messages begin. The size that a message of MPS asks for begins no other one."""
    found: list[re.Match[str]] = []
    for match in HEAD.finditer(text):
        inside = found and found[-1]["mps"] and match["caching"] and match[0].startswith("Tried")
        if not inside:
            found.append(match)
    return found


def parse(text: str, line: int) -> Message | None:
    """The message that begins somewhere in `text`, whose lines have been joined; `line` is its number in the log."""
    starts = beginnings(text)
    if not starts:
        return None
    head = starts[0]
    stop = starts[1].start() if len(starts) > 1 else len(text)
    body = text[head.start() : min(stop, head.start() + MOST)]
    group = head.lastgroup or "bare"
    kind: Kind = "caching" if group == "block" else group  # type: ignore[assignment]
    if kind == "cpu":
        return _cpu(body, line)
    figures = {name: _first(patterns, body) for name, patterns in _FIGURES.items()}
    gpu = next((int(match[1]) for pattern in _GPU if (match := pattern.search(body))), None)
    pool = _POOL.search(body)
    return Message(
        kind=kind,
        backend=_backend(kind, group, head[0], body),
        text=_tidy(body, kind),
        line=line,
        gpu=gpu,
        others=tuple(Process(match[1], printed(match[2], match[3])) for match in _OTHERS.finditer(body)),
        pool=pool[1] if pool else "",
        block_limit=group == "block",
        suggestion=_suggestion(body),
        library=head[0] if kind == "library" else "",
        early=kind == "caching" and _CACHED.search(body) is not None,
        **(figures if kind in ("caching", "async", "mps") else {}),
    )


def _cpu(body: str, line: int) -> Message:
    match = _BYTES.search(body)
    asked: Printed | None = None
    if match is not None:
        number = int(match[1])
        if match[2] and "GB" in match[2]:  # whole GiB, cut off: TH/THGeneral.cpp
            asked = Printed(f"{number} GB", number << 30, ((number + 1) << 30) - 1)
        else:
            asked = Printed(f"{number} bytes", number, number)
    return Message("cpu", "CPU", _tidy(body, "cpu"), line, asked=asked, suggestion=_suggestion(body))


def _first(patterns: tuple[re.Pattern[str], ...], body: str) -> Printed | None:
    """The figure, in the wording that the message has; None too where it stands for "not known"."""
    match = next((match for pattern in patterns if (match := pattern.search(body))), None)
    return None if match is None else printed(match[1], match[2])


def _backend(kind: Kind, group: str, head: str, body: str) -> str:
    if group == "block":
        return "XPU"
    if kind == "mps":
        return "MPS"
    word = re.match(r"[A-Z]{2,5}(?=\s*(?:out\b|\\n|driver|runtime|error))", head)
    if kind == "caching" and word is None:
        return "CUDA" if "GPU" in body else ""
    if kind == "library":
        return "HIP" if head.startswith(("HIP", "MIOPEN")) else "CUDA"
    return word[0] if word else "CUDA"


def _suggestion(body: str) -> str:
    for pattern, said in _SUGGESTIONS:
        match = pattern.search(body)
        if match is not None:
            return said or "".join(match[1].split())
    return ""


# What follows a message is not its own: the first of these ends it.
_END = {
    "caching": _pattern(
        r"unallocated\.? |reserved in total by PyTorch\) ?|SIZE cached\) |environment-variables\)|ALLOC_CONF(?=\W|$)"
    ),
    "mps": _pattern(r"\(may cause system failure\)\.?|on \w+ pool\."),
    "async": _pattern(r"memory fraction\) : SIZE|Free \(according to CUDA\): SIZE"),
    "cpu": _pattern(r"Error code \d+ \([^)]*\)|bytes\.?|Buy new RAM!?"),
}


def _tidy(body: str, kind: Kind) -> str:
    """The message alone, its white space made single blanks, no longer than a paragraph."""
    end = _END.get(kind)
    stop = end.search(body) if end is not None else None
    text = body[: stop.end()] if stop is not None else body.splitlines()[0][:300]
    return " ".join(text.split())[:MOST]
