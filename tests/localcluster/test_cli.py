from __future__ import annotations

import sys
from pathlib import Path

import pytest

from localcluster import cli, clusters


@pytest.fixture(autouse=True)
def empty_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKELOOP_ROOT", str(tmp_path))
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["localcluster", *argv])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        pytest.param(["status", "--name", "Bad"], 1, "error: --name 'Bad': use lower-case", id="bad name"),
        pytest.param(["load-image", "x:1"], 1, "cluster 'lakeloop' does not run: start it with", id="no cluster"),
        pytest.param(["logs", "etcd"], 1, "no log of 'etcd' in", id="no logs"),
        pytest.param(["nonsense"], 2, "No such command 'nonsense'", id="unknown command"),
    ],
)
def test_mistakes(
    argv: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *argv) == code
    assert words in capsys.readouterr().err


def test_status_of_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "status") == 3
    assert "cluster lakeloop: down" in capsys.readouterr().out


def test_logs(empty_checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = empty_checkout / ".lakeloop/lakeloop/logs"
    folder.mkdir(parents=True)
    (folder / "etcd.log").write_text("".join(f"line {number}\n" for number in range(9)))
    assert call(monkeypatch, "logs", "etcd", "--lines", "2") == 0
    assert capsys.readouterr().out == "line 7\nline 8\n"


def test_a_program_that_does_not_run_shows_in_the_status() -> None:
    found = clusters.Status("demo", 7, "172.31.200.6", "/k", "/logs", {"etcd": 8, "kubelet": None})
    assert not found.healthy
    assert "cluster demo: not whole, first process 7" in found.lines()
    assert any(line.split(maxsplit=1)[0] == "kubelet" and "does not run" in line for line in found.lines())
