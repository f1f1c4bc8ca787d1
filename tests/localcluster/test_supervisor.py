from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.node import supervisor
from localcluster.node.supervisor import LOG_LIMIT, Program, Supervisor, answers


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def supervise(logs: Path) -> Iterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def make(*programs: Program) -> Supervisor:
        started.append(Supervisor(list(programs), logs))
        return started[-1]

    yield make
    for one in started:
        one.stop()


def until(condition: Callable[[], bool], work: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        work()
        time.sleep(0.005)


def test_a_program_that_ends_is_started_again_later_and_later(supervise: Callable[..., Supervisor]) -> None:
    program = Program("short", ["/bin/sh", "-c", "echo once; exit 3"], None)
    one = supervise(program)
    pauses = []
    for _ in range(3):
        program.due = 0.0
        one.start_due()
        until(lambda: program.pid == 0, one.reap)
        pauses.append(program.backoff)
    assert pauses == [1.0, 2.0, 4.0]
    assert program.due > time.monotonic()
    assert (one.logs / "short.log").read_text() == "once\n" * 3


def test_a_program_that_ran_well_is_started_again_at_once(supervise: Callable[..., Supervisor]) -> None:
    program = Program("long", ["/bin/sh", "-c", "exit 0"], None, backoff=8.0)
    one = supervise(program)
    one.start_due()
    program.started -= supervisor.SETTLED + 1
    until(lambda: program.pid == 0, one.reap)
    assert program.backoff == supervisor.BACKOFF[0]


def test_a_program_waits_for_what_it_wants(supervise: Callable[..., Supervisor], tmp_path: Path) -> None:
    program = Program("late", ["/bin/sleep", "60"], f"unix:{tmp_path}/socket")
    one = supervise(program)
    one.start_due()
    assert program.pid == 0
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/socket")
        server.listen()
        one.start_due()
    assert program.pid > 0


def test_stop_ends_what_runs(supervise: Callable[..., Supervisor]) -> None:
    programs = [Program(str(number), ["/bin/sleep", "60"], None) for number in range(2)]
    one = supervise(*programs)
    one.start_due()
    assert all(program.pid for program in programs)
    one.stop()
    assert not any(program.pid for program in programs)


def test_a_long_log_is_put_aside_and_appending_goes_on(supervise: Callable[..., Supervisor], logs: Path) -> None:
    with (logs / "etcd.log").open("ab") as log:
        log.write(b"x" * (LOG_LIMIT + 1))
        log.flush()
        supervise().bound_logs()
        log.write(b"after")
    assert (logs / "etcd.log").read_bytes() == b"after"
    assert (logs / "etcd.log.1").stat().st_size == LOG_LIMIT + 1


def test_a_short_log_is_left_alone(supervise: Callable[..., Supervisor], logs: Path) -> None:
    (logs / "etcd.log").write_text("short")
    supervise().bound_logs()
    assert [path.name for path in logs.iterdir()] == ["etcd.log"]


def test_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers(f"tcp:127.0.0.1:{port}")
    assert not answers(f"tcp:127.0.0.1:{port}")
    assert not answers("unix:/nowhere")
    assert answers(None)


def test_it_needs_nothing_but_the_standard_library() -> None:
    check = f"import runpy; runpy.run_path({supervisor.__file__!r}, run_name='x')"
    subprocess.run([sys.executable, "-I", "-S", "-c", check], check=True)
