"""The copy that is kept of a program's output: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lakeloop_trainer.log_files import Segments, segment_size
from lakeloop_trainer.log_source import Source

LOGGED = str(Path(sys.executable).parent / "lakeloop-logged")
TAIL = 1 << 20


def start(folder: Path, *command: str, tail: int = TAIL) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "LAKELOOP_LOG_FOLDER": str(folder), "LAKELOOP_LOG_TAIL_BYTES": str(tail)}
    return subprocess.Popen([LOGGED, *command], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def kept(folder: Path, tail: int = TAIL) -> bytes:
    segments = Segments(folder, tail)
    return b"".join(segments.read(index) or b"" for index in segments.present())


def until_kept(folder: Path, wanted: bytes) -> None:
    end = time.monotonic() + 20
    while wanted not in kept(folder):
        assert time.monotonic() < end, kept(folder)
        time.sleep(0.01)  # a poll


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    """What the sidecar holds open, from before the program begins."""
    found = Source(tmp_path, TAIL)
    yield found
    os.close(found.pipe)


def test_both_outputs_are_kept_and_passed_on(tmp_path: Path) -> None:
    program = start(tmp_path, sys.executable, "-c", "import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')")
    shown, errors = program.communicate(timeout=20)
    assert (program.returncode, shown, errors) == (0, b"out\nerr\n", b"")
    assert kept(tmp_path) == b"out\nerr\n"


def test_more_than_a_pipe_holds(tmp_path: Path) -> None:
    wanted = b"".join(b"%07d\n" % number for number in range(200_000))
    script = "import sys; sys.stdout.write(''.join('%07d\\n' % number for number in range(200_000)))"
    shown, _ = start(tmp_path, sys.executable, "-c", script).communicate(timeout=30)
    assert shown == wanted
    tail = kept(tmp_path)
    assert wanted.endswith(tail)
    assert TAIL * 7 // 8 <= len(tail) <= TAIL


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143),
    ],
)
def test_the_exit_code_is_the_programs(tmp_path: Path, script: str, code: int) -> None:
    program = start(tmp_path, sys.executable, "-c", f"print('last words', flush=True); {script}")
    program.communicate(timeout=20)
    assert program.returncode == code
    assert b"last words" in kept(tmp_path)


def test_sigterm_reaches_the_program(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n    print('ended well', flush=True)\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\ntime.sleep(60)"
    )
    program = start(tmp_path, sys.executable, "-c", script)
    until_kept(tmp_path, b"up\n")
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=20)
    assert program.returncode == 143
    assert kept(tmp_path) == b"up\nended well\n"


def test_what_is_in_the_pipe_outlives_all_who_were_to_read_it(tmp_path: Path, source: Source) -> None:
    """Out of memory: the kernel kills the program and the one that copies for it, with bytes on their way."""
    script = "import os, signal, time; print('up', flush=True); time.sleep(60)"
    program = start(tmp_path, sys.executable, "-c", script)
    until_kept(tmp_path, b"up\n")
    assert source.began
    assert not source.over()
    child = int(Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text())
    program.send_signal(signal.SIGSTOP)  # it no longer comes to read
    with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
        pipe.write(b"the last line\n")
    program.kill()
    program.wait(20)
    assert not source.over()  # the program itself still lives, and may write
    os.kill(child, signal.SIGKILL)
    end = time.monotonic() + 20
    while not source.over():
        assert time.monotonic() < end
        time.sleep(0.01)  # a poll
    assert kept(tmp_path) == b"up\nthe last line\n"


def test_a_program_whose_children_live_on_ends(tmp_path: Path) -> None:
    """They hold the pipe; in a container they are killed with it."""
    program = start(tmp_path, "/bin/sh", "-c", "sleep 30 & echo done")
    try:
        assert program.wait(20) == 0
        assert kept(tmp_path) == b"done\n"
    finally:
        program.stdout.close()  # type: ignore[union-attr]


def test_a_volume_that_cannot_be_used_fails_no_run(tmp_path: Path) -> None:
    program = start(tmp_path / "not-there", sys.executable, "-c", "print('ran')")
    shown, errors = program.communicate(timeout=20)
    assert (program.returncode, shown) == (0, b"ran\n")
    assert b"not kept" in errors


def test_nothing_is_kept_unasked(tmp_path: Path) -> None:
    shown, _ = start(tmp_path, sys.executable, "-c", "print('ran')", tail=0).communicate(timeout=20)
    assert shown == b"ran\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tail", [1, 7, 100, 256, 1000, 5000, 1 << 20, 10 << 20, 1 << 30])
def test_at_most_the_tail_is_kept_and_nearly_all_of_it(tmp_path: Path, tail: int) -> None:
    segments = Segments(tmp_path, tail)
    content = bytes(range(256)) * (min(3 * tail, 30 << 20) // 256 + 2)
    for at in range(0, len(content), 1 << 16):
        segments.write(content[at : at + (1 << 16)])
    found = b"".join(segments.read(index) or b"" for index in segments.present())
    assert content.endswith(found)
    assert 1 <= len(found) <= tail
    if tail >= 4096:
        assert len(found) >= min(len(content), tail * 7 // 8)
    assert sum(segments.present().values()) == len(found)
    assert (min(segments.present()) - 1) * segment_size(tail) == len(content) - len(found)


def test_a_second_writer_goes_on_where_the_first_was(tmp_path: Path) -> None:
    Segments(tmp_path, 2048).write(b"a" * 300)
    Segments(tmp_path, 2048).write(b"b" * 300)
    assert Segments(tmp_path, 2048).present() == {1: 256, 2: 256, 3: 88}


def test_the_kernel_moves_the_bytes(tmp_path: Path) -> None:
    """Not one is lost, over the border of a segment, and nothing is taken that does not fit."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    try:
        segments = Segments(tmp_path, 2048)
        content = bytes(range(256)) * 3
        os.write(writing, content)
        taken = [segments.take(reading, 100) for _ in range(9)]
        assert b"".join(taken) == content
        with pytest.raises(BlockingIOError):
            segments.take(reading, 100)
        os.close(writing)
        assert segments.take(reading, 100) == b""
        assert segments.present() == {1: 256, 2: 256, 3: 256, 4: 0}
        assert b"".join(segments.read(index) or b"" for index in (1, 2, 3)) == content
    finally:
        os.close(reading)


def test_a_full_disk_leaves_the_output_in_the_pod_s_log(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    environ = {**os.environ, "LAKELOOP_LOG_FOLDER": str(tmp_path), "LAKELOOP_LOG_TAIL_BYTES": str(TAIL)}
    command = ["/bin/sh", "-c", f"ulimit -f 0; exec {LOGGED} {sys.executable} -c \"print('goes on')\""]
    done = subprocess.run(command, env=environ, capture_output=True, timeout=30, check=True)
    said, last = done.stdout.decode().splitlines()
    assert "not kept in the object store" in said
    assert last == "goes on"
    assert (tmp_path / "broken").exists()
