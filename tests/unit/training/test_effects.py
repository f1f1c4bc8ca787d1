"""Effects look before they write: an old leader that is not quite gone must not make a second run or version."""

from unit.training.fakes import START, FakeTracking, Writes

from lakeloop.domain.training.observed import EnsureRun, RegisterVersion
from lakeloop.reconcile.training_effects import ensure_run, register

UID = "lakeloop.io/run-uid"


async def test_one_mlflow_run_per_uid() -> None:
    server = FakeTracking(Writes())
    for uid in ("one", "one", "two"):
        await ensure_run(server, EnsureRun("churn", "churn-1", uid, START, {UID: uid}))
    assert [run.tags[UID] for run in server.runs.values()] == ["one", "two"]


async def test_one_model_version_per_uid() -> None:
    server = FakeTracking(Writes())
    for uid in ("one", "one", "two"):
        await register(server, RegisterVersion("churn", "s3://m", "run", uid, None, "", {UID: uid}))
    assert [(version.version, version.tags[UID]) for version in server.versions.values()] == [(1, "one"), (2, "two")]
