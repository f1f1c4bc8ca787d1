"""The command line's own part: work beside a watcher, and what is told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lakeloop.cli import commands
from lakeloop.cli.errors import CliError

CHARTS = Path(__file__).parents[3] / "charts"
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
STUCK = {"containerStatuses": [{"name": "c", "image": "i", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}]}


class Cluster:
    """Pods that never change."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "p", "namespace": namespace, "labels": {}}, "status": self.status}]


async def answer(value: int) -> int:
    return value


async def failure(message: str) -> int:
    raise CliError(message)


async def test_work_ends_the_watch(capsys: pytest.CaptureFixture[str]) -> None:
    cluster: Any = Cluster(READY)
    assert await asyncio.wait_for(commands.while_watching(cluster, ["a"], [answer(1), answer(2)]), 5) == [1, 2]


async def test_all_failures_are_told() -> None:
    cluster: Any = Cluster(READY)
    with pytest.raises(CliError, match="first\nsecond"):
        await commands.while_watching(cluster, ["a"], [failure("first"), answer(1), failure("second")])


async def test_waiting_in_vain_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PATIENCE_SECONDS", -1)
    stopped = asyncio.Event()

    async def helm() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return 0

    cluster: Any = Cluster(STUCK)
    with pytest.raises(CliError, match=r"waiting would not help:\n  a/p \(c, i\): ErrImageNeverPull"):
        await asyncio.wait_for(commands.while_watching(cluster, ["a"], [helm()]), 5)
    assert stopped.is_set()


@pytest.mark.parametrize("profile", ["local", "kind"])
def test_profile_files(profile: Any) -> None:
    values = commands.profile_files(CHARTS, profile)
    assert values.platform["mlflow"]["service"] == {"type": "NodePort", "nodePort": 30500}
    assert values.platform["minio"]["service"] == {"type": "NodePort", "nodePort": 30900}
    assert values.lakeloop["server"] == {"serviceType": "NodePort"}


def test_a_cluster_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands.cli, ["status", "--charts", str(CHARTS), "--kubeconfig", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)


def test_help_names_the_commands() -> None:
    done = CliRunner().invoke(commands.cli, ["--help"])
    assert done.exit_code == 0
    assert {"up", "down", "status"} <= set(done.output.split())
