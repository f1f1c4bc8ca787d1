"""Finding Helm and the charts, and what a release's state allows."""

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyhelm3.errors
import pytest

from lakeloop.cli.errors import CliError
from lakeloop.cli.releases import Command, Helm, Installed, Release, find_charts, find_helm, last_line, parse_version

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RELEASE = Release("lakeloop", Path("charts/lakeloop"), "lakeloop-system")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("v4.0.4", (4, 0, 4)), ("v4.0", (4, 0, 0)), ("v3.19.2\n", (3, 19, 2)), ("v4.1.0-rc.1+g1", (4, 1, 0))],
)
def test_versions(text: str, expected: tuple[int, int, int]) -> None:
    found = parse_version(text)
    assert (found.major, found.minor, found.patch) == expected


def test_helm_is_found_in_this_order(tmp_path: Path) -> None:
    given, named, on_path = (str(program(tmp_path / folder / "helm", "")) for folder in ("given", "named", "path"))
    environment = {"PATH": str(tmp_path / "path"), "LAKELOOP_HELM": named}
    assert find_helm(given, environment) == given
    assert find_helm(None, environment) == named
    assert find_helm(None, {"PATH": str(tmp_path / "path")}) == on_path
    with pytest.raises(CliError, match="install Helm 4, or say where it is"):
        find_helm(None, {"PATH": str(tmp_path)})


def test_helm_3_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"is Helm 3\.19\.0: Helm 4 is needed"):
        Helm(str(program(tmp_path / "helm", "echo v3.19.0")), None)


def test_charts_are_found_from_here_and_where_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lakeloop", "lakeloop-platform"):
        (tmp_path / "charts" / name).mkdir(parents=True)
        (tmp_path / "charts" / name / "Chart.yaml").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert find_charts(None) == tmp_path / "charts"
    assert find_charts(tmp_path / "charts") == tmp_path / "charts"
    with pytest.raises(CliError, match="say where with --charts"):
        find_charts(tmp_path / "a")


def test_an_error_is_told_without_the_warnings_before() -> None:
    said = b'level=WARN msg="x"\nError: UPGRADE FAILED: it is so\n  because of this\n'
    assert last_line(pyhelm3.errors.Error(1, b"", said)) == "Error: UPGRADE FAILED: it is so\n  because of this"
    assert last_line(pyhelm3.errors.Error(2, b"", b"")) == "exit code 2"


async def test_a_cancelled_command_ends_helm_itself(tmp_path: Path) -> None:
    """Not only the shell that started it; Helm tells the cluster so before it ends."""
    begun, told = tmp_path / "begun", tmp_path / "told"
    trap = f"trap 'echo told > {told}; kill $!; exit 1' TERM"
    helm = program(tmp_path / "helm", f"sleep 30 > /dev/null 2>&1 &\n{trap}\ntouch {begun}\nwait")
    task = asyncio.create_task(Command(executable=str(helm)).run(["upgrade"]))
    while not begun.exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    async with asyncio.timeout(5):
        while not told.exists() or told.read_text() != "told\n":
            await asyncio.sleep(0.01)


class FakeHelm(Helm):
    """Helm with one release in a given state."""

    def __init__(self, status: str | None, age: timedelta = timedelta(0)) -> None:
        self.found = Installed("lakeloop", "lakeloop-system", 3, status, NOW - age) if status else None
        self.freed = False
        self._client: Any = self

    async def installed(self, release: Release) -> Installed | None:
        return self.found

    async def get_proceedable_revision(self, name: str, *, namespace: str) -> None:
        assert (name, namespace) == ("lakeloop", "lakeloop-system")
        self.freed = True


@pytest.mark.parametrize("status", [None, "deployed", "failed", "superseded"])
async def test_a_release_that_nobody_holds_is_left_alone(status: str | None) -> None:
    helm = FakeHelm(status)
    await helm.free(RELEASE, timedelta(minutes=10), NOW)
    assert not helm.freed


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "pending-rollback", "uninstalling"])
async def test_a_release_that_somebody_works_on_is_not_touched(status: str) -> None:
    helm = FakeHelm(status, timedelta(minutes=9))
    with pytest.raises(CliError, match=f"release lakeloop is {status} since 540 s"):
        await helm.free(RELEASE, timedelta(minutes=10), NOW)
    assert not helm.freed


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "pending-rollback", "uninstalling"])
async def test_a_release_whose_worker_died_is_freed(status: str) -> None:
    helm = FakeHelm(status, timedelta(minutes=11))
    await helm.free(RELEASE, timedelta(minutes=10), NOW)
    assert helm.freed
