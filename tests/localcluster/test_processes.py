from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from localcluster import processes


@pytest.mark.parametrize(
    ("stat", "expected"),
    [
        pytest.param("7 (etcd) S " + " ".join(["0"] * 18) + " 4711 0", ("S", 4711), id="plain"),
        pytest.param("7 (a) b (c) Z " + " ".join(["0"] * 18) + " 12 0", ("Z", 12), id="parentheses in the name"),
    ],
)
def test_parse_stat(stat: str, expected: tuple[str, int]) -> None:
    assert processes.parse_stat(stat) == expected


def test_this_process_is_alive_and_survives_a_pid_file(tmp_path: Path) -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    me.save(tmp_path / "me.pid")
    assert processes.load(tmp_path / "me.pid") == me


@pytest.mark.parametrize("change", [{"start": 1}, {"boot": "another boot"}], ids=["reused pid", "after a reboot"])
def test_a_pid_that_is_another_process_now_is_not_taken_for_ours(tmp_path: Path, change: dict[str, object]) -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    dataclasses.replace(me, **change).save(tmp_path / "me.pid")  # type: ignore[arg-type]
    assert processes.load(tmp_path / "me.pid") is None


@pytest.mark.parametrize("content", ["", "12", "{}", '{"pid": 1'], ids=["empty", "a bare number", "no fields", "torn"])
def test_a_broken_pid_file_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.pid").write_text(content)
    assert processes.load(tmp_path / "x.pid") is None


def test_a_zombie_does_not_count_as_alive() -> None:
    child = subprocess.Popen(["true"])
    deadline = time.monotonic() + 5
    while processes.identify(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert processes.identify(child.pid) is None
    child.wait()


def test_stop_kills_what_does_not_listen() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    process = processes.identify(child.pid)
    assert process is not None
    processes.stop(process, grace=0.1)
    assert child.wait() == -signal.SIGKILL
