"""A Secret is read once for a burst of jobs, and anew soon after."""

from unit.training.fakes import FakeClock, FakeKubernetes, Writes

from lakeloop.domain.plan import ObjectRef
from lakeloop.reconcile.secrets import RecentSecrets


class Counting(FakeKubernetes):
    def __init__(self) -> None:
        super().__init__(FakeClock(), Writes())
        self.reads: list[str] = []

    async def get(self, ref: ObjectRef) -> object:  # type: ignore[override]
        self.reads.append(f"{ref.namespace}/{ref.name}")
        return await super().get(ref)

    def holds(self, name: str, value: str) -> None:
        meta = {"name": name, "namespace": "team-a"}
        self.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"key": value}})


async def test_once_for_a_burst_and_anew_afterwards() -> None:
    kubernetes, moment = Counting(), [100.0]
    kubernetes.holds("storage", "old")
    secrets = RecentSecrets(kubernetes, 2.0, lambda: moment[0])
    for _ in range(3):
        assert (await secrets.get("team-a", "storage") or {})["data"] == {"key": "old"}
        assert await secrets.get("team-a", "mlflow") is None
        assert await secrets.get("team-b", "storage") is None, "another namespace's is another one"
    assert kubernetes.reads == ["team-a/storage", "team-a/mlflow", "team-b/storage"]
    kubernetes.holds("storage", "new")
    kubernetes.holds("mlflow", "made")
    moment[0] += 1.9
    assert (await secrets.get("team-a", "storage") or {})["data"] == {"key": "old"}
    moment[0] += 0.1
    assert (await secrets.get("team-a", "storage") or {})["data"] == {"key": "new"}
    assert (await secrets.get("team-a", "mlflow") or {})["data"] == {"key": "made"}
    assert list(secrets._read) == [("team-a", "storage"), ("team-a", "mlflow")], "what is not asked for is not kept"


async def test_none_is_kept_where_none_may_be() -> None:
    kubernetes = Counting()
    kubernetes.holds("storage", "old")
    secrets = RecentSecrets(kubernetes, 0.0)
    await secrets.get("team-a", "storage")
    await secrets.get("team-a", "storage")
    assert len(kubernetes.reads) == 2
