"""Logs are read as they come: long, wrapped, prefixed, from several processes, in any encoding, or no text at all."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from memplan.errors import ConfigurationError
from memplan.oom.log import opened, read_log
from memplan.oom.message import Report

HEAD = "torch.OutOfMemoryError: CUDA out of memory. "
BODY = (
    "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.21 GiB is free. Process 4321 has "
    "3.00 GiB memory in use. Including non-PyTorch memory, this process has 74.94 GiB memory in use. Of the allocated "
    "memory 73.00 GiB is allocated by PyTorch, with 20.00 MiB allocated in private pools (e.g., CUDA Graphs), and 1.37 "
    "GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
    "Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
TRACEBACK = """Traceback (most recent call last):
  File "/home/me/train.py", line 88, in <module>
    loss.backward()
  File "/opt/torch/_tensor.py", line 626, in backward
    torch.autograd.backward(
"""


def read(text: str | bytes) -> tuple[Report, ...]:
    return read_log(io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def whole(report: Report) -> bool:
    """Whether all of BODY has been understood."""
    message = report.message
    sizes = (message.asked, message.capacity, message.free, message.this_process, message.allocated)
    sizes = (*sizes, message.private_pools, message.unallocated)
    texts = [size.text for size in sizes if size is not None]
    expected = ["2.00 GiB", "79.15 GiB", "1.21 GiB", "74.94 GiB", "73.00 GiB", "20.00 MiB", "1.37 GiB"]
    others = [(each.number, each.size.text) for each in message.others if each.size is not None]
    return (
        texts == expected
        and others == [("4321", "3.00 GiB")]
        and message.suggestion == "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
    )


def wrapped(text: str, width: int, prefix: str = "", at_words: bool = False) -> str:
    """As a terminal breaks it, or as words are wrapped."""
    if at_words:
        import textwrap

        lines = textwrap.wrap(text, width)
    else:
        lines = [text[at : at + width] for at in range(0, len(text), width)]
    return "".join(f"{prefix}{line}\n" for line in lines)


@pytest.mark.parametrize("width", [38, 40, 57, 79, 80, 100, 120, 133, 4000])
@pytest.mark.parametrize("at_words", [False, True])
def test_a_message_may_be_broken_anywhere(width: int, at_words: bool) -> None:
    (report,) = read("step 1\n" + wrapped(HEAD + BODY, width, at_words=at_words) + "step 2\n")
    assert whole(report)


@pytest.mark.parametrize(
    ("prefix", "process"),
    [
        ("[rank3]: ", "rank 3"),
        ("[rank12]:", "rank 12"),
        ("3: ", "rank 3"),
        ("(EngineCore pid=518) ERROR 07-29 21:48:54 [core.py:1141] ", "pid 518"),
        ("(VllmWorker rank=3 pid=1090) ERROR 06-05 06:18:13 [multiproc_executor.py:470] ", "rank 3, pid 1090"),
        ("[2025-05-06 18:36:50,956] [ERROR] [axolotl.load_model:1273] [PID:6160] [RANK:0] ", "rank 0, pid 6160"),
        ("[default5]:", "rank 5"),
        ("2025-11-14T08:52:38.3746210Z ", "GPU 0"),
        ("> ", "GPU 0"),
        ("E   ", "GPU 0"),
        ("# ", "GPU 0"),
    ],
)
def test_what_loggers_put_before_lines_is_taken_off(prefix: str, process: str) -> None:
    text = "".join(f"{prefix}{line}\n" for line in TRACEBACK.splitlines()) + wrapped(HEAD + BODY, 90, prefix)
    (report,) = read(text)
    assert report.process == process
    assert whole(report)
    assert [frame.function for frame in report.frames] == ["<module>", "backward"]


def test_the_first_message_of_every_process_is_kept_and_the_others_counted() -> None:
    lines = []
    for step in range(3):
        for rank in (1, 0, 2):
            body = BODY.replace("2.00 GiB", f"{step + 2}.00 GiB") if rank == 2 else BODY
            lines.append(f"[rank{rank}]: {HEAD}{body}\n")
    reports = read("".join(lines))
    assert [(report.process, report.count, report.same, report.message.line) for report in reports] == [
        ("rank 1", 3, 3, 1),
        ("rank 0", 3, 3, 2),
        ("rank 2", 3, 1, 3),
    ]


def test_lines_of_several_processes_that_alternate() -> None:
    one, other = (wrapped(HEAD + BODY, 60, f"[rank{rank}]: ").splitlines() for rank in (0, 1))
    reports = read("".join(f"{first}\n{second}\n" for first, second in zip(one, other, strict=True)))
    assert [report.process for report in reports] == ["rank 0", "rank 1"]
    assert all(whole(report) for report in reports)


def test_without_a_label_the_number_of_the_card_tells_processes_apart() -> None:
    reports = read(f"{HEAD}{BODY}\n{HEAD}{BODY.replace('GPU 0', 'GPU 3')}\n")
    assert [report.process for report in reports] == ["GPU 0", "GPU 3"]


def test_two_messages_in_one_line() -> None:
    (report,) = read(f"{HEAD}{BODY} During handling: {HEAD}{BODY}\n")
    assert (report.count, report.same) == (2, 2) and whole(report)


def test_one_with_figures_is_kept_where_the_first_had_none() -> None:
    (report,) = read(f"WARNING: CUDA out of memory.\nretrying\n[rank0]: CUDA out of memory.\n[rank0]: {HEAD}{BODY}\n")[
        :1
    ]
    assert whole(report) and (report.process, report.count) == ("rank 0", 2)


def test_only_the_frames_of_the_last_traceback_lead_to_a_message() -> None:
    text = 'Traceback (most recent call last):\n  File "old.py", line 1, in old\n    f()\nValueError\n'
    (report,) = read(text + TRACEBACK + HEAD + BODY)
    assert [(frame.file, frame.line, frame.code) for frame in report.frames] == [
        ("/home/me/train.py", 88, "loss.backward()"),
        ("/opt/torch/_tensor.py", 626, "torch.autograd.backward("),
    ]


def test_frames_of_a_notebook() -> None:
    text = (
        "File ~/env/torch/nn/functional.py:3059, in cross_entropy(input, target, weight)\n"
        "   3057 if size_average is not None:\n"
        "-> 3059     return torch._C._nn.cross_entropy_loss(input, target)\n\n"
    )
    (report,) = read(text + HEAD + BODY)
    (frame,) = report.frames
    assert (frame.function, frame.line) == ("cross_entropy", 3059)
    assert frame.code == "return torch._C._nn.cross_entropy_loss(input, target)"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str) -> None:
    (report,) = read(f"Schritt 1: ü\r\n{HEAD}{BODY}\r\n".encode(encoding))
    assert whole(report) and report.message.line == 2


def test_progress_bars_that_return_to_the_start_of_the_line() -> None:
    bars = "\r".join(f"{step}/100 [00:{step:02}<01:00]" for step in range(60))
    (report,) = read(f"start\n{bars}\r{HEAD}{BODY}\n")
    assert whole(report) and report.message.line == 2


def test_a_message_within_one_line_of_json() -> None:
    (report,) = read('{"error": "' + "x" * 100_000 + r"\n" + HEAD + BODY + r"\nmore" + '"}')
    assert whole(report)


class Endless(io.RawIOBase):
    """Much text that is never all in memory."""

    def __init__(self, line: bytes, size: int, end: bytes) -> None:
        self.part = line * (2**16 // len(line))
        self.left, self.end = size, end

    def read(self, size: int = -1) -> bytes:
        if self.left > 0:
            self.left -= len(self.part)
            return self.part
        end, self.end = self.end, b""
        return end


def test_a_message_behind_100_mb_is_found_with_its_traceback() -> None:
    line = b"step 17 loss 2.345 memory 12.3 GiB allocated 11.9 GiB\n"
    (report,) = read_log(Endless(line, 100_000_000, f"{TRACEBACK}{HEAD}{BODY}\n".encode()))  # type: ignore[arg-type]
    assert whole(report) and report.message.line > 1_800_000
    assert [frame.function for frame in report.frames] == ["<module>", "backward"]


@pytest.mark.parametrize("line", [b"step 17 loss 2.345 memory 12.3 GiB\n", b"\0" * 64, b"x" * 100])
def test_a_long_log_is_never_all_in_memory(line: bytes) -> None:
    stream = Endless(line, 30_000_000, f"\n{TRACEBACK}{HEAD}{BODY}\n".encode())
    tracemalloc.start()
    (report,) = read_log(stream)  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert whole(report)
    assert peak < 20_000_000


def test_a_log_full_of_messages_is_read_in_bounded_memory() -> None:
    stream = Endless(f"[rank0]: {HEAD}{BODY}\n".encode(), 1_000_000, b"")
    (report,) = read_log(stream)  # type: ignore[arg-type]
    assert whole(report) and report.count == report.same > 1000


def garbage() -> Iterator[bytes]:
    generator = random.Random(7)
    yield b""
    yield b"\n\n\n"
    yield b"\0" * 10_000
    yield bytes(generator.randrange(256) for _ in range(50_000))
    yield b"out of ideas\nno memory of it\nTried to allocate time\n"
    yield b"except torch.cuda.OutOfMemoryError as error:\n    print(error)\n"
    yield b"\xff\xfe\x00"
    yield "训练内存不足\n".encode("gb18030")


@pytest.mark.parametrize("content", list(garbage()))
def test_what_holds_no_message_is_refused_with_a_word_of_what_to_give(content: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(content)
    assert "no message of running out of memory" in caught.value.message or "input is empty" in caught.value.message
    assert caught.value.hint is not None and "Tried to allocate" in caught.value.hint


def test_numbers_without_end_are_no_figures() -> None:
    digits = "9" * 9000
    (report,) = read(
        f'  File "a.py", line {digits}, in f\n-> {digits} x\nCUDA out of memory. Tried to allocate {digits}.00 GiB '
        f"(GPU {digits}; {digits} GiB total capacity; 1.00 GiB already allocated\n"
    )
    assert report.message.asked is None and report.message.capacity is None and report.message.gpu is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in (str(tmp_path / "missing.log"), str(tmp_path), "\0"):
        with pytest.raises(ConfigurationError, match="cannot be read"), opened(name):
            pass
