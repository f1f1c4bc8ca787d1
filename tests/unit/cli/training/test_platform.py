"""Ways to MLflow and the store, and what is said where there is none."""

import socket
import threading
from typing import Any

import pytest
from botocore.stub import Stubber

from lakeloop.cli import archived_logs
from lakeloop.cli.errors import CliError
from lakeloop.cli.training import log_sources
from lakeloop.cli.training.forward import Forward, PodPort
from lakeloop.cli.training.log_sources import Wanted
from lakeloop.cli.training.platform import Platform, ServicePort, pod_behind, service_of
from lakeloop.cli.training.store import Store, StoreAccess, Stored

KEYS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hunter2"}


@pytest.mark.parametrize(
    ("address", "service"),
    [
        ("http://mlflow.lakeloop-platform.svc:5000", ServicePort("lakeloop-platform", "mlflow", 5000)),
        ("http://minio.p.svc.cluster.local", ServicePort("p", "minio", 80)),
        ("https://minio.p.svc", ServicePort("p", "minio", 443)),
        ("https://mlflow.example.com", None),
        ("http://mlflow.example", None),
        ("http://10.0.0.1:5000", None),
        ("http://localhost:5000", None),
    ],
)
def test_what_is_inside_the_cluster(address: str, service: ServicePort | None) -> None:
    assert service_of(address) == service


def pod(pod_name: str, ready: str, **port: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": pod_name, "namespace": "p"},
        "spec": {"containers": [{"name": "c", "ports": [port]}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


@pytest.mark.parametrize(
    ("target", "port"), [("http", 5001), (5002, 5002), (None, 5000)], ids=["by name", "by number", "left out"]
)
def test_a_pod_behind_a_service(target: Any, port: int) -> None:
    one = {"port": 5000, **({"targetPort": target} if target else {})}
    service = {"spec": {"ports": [{"port": 1}, one]}}
    pods = [
        pod("starting", "False", name="http", containerPort=1),
        pod("good", "True", name="http", containerPort=5001),
    ]
    assert pod_behind(service, 5000, pods) == PodPort("p", "good", port)
    assert pod_behind(service, 5000, pods[:1]) is None


def test_a_forward_copies_both_ways_and_ends() -> None:
    ends: list[socket.socket] = []

    def dial() -> socket.socket:
        near, far = socket.socketpair()
        ends.append(far)
        return near

    forward = Forward(dial)
    assert len(ends) == 1, "it dials at once, so that a refusal is told"
    callers = [socket.create_connection(("127.0.0.1", forward.port)) for _ in range(2)]
    for index, caller in enumerate(callers):
        caller.sendall(b"question")
        while len(ends) <= index:
            pass
        assert ends[index].recv(100) == b"question"
        ends[index].sendall(b"answer")
        assert caller.recv(100) == b"answer"
    callers[0].close()
    assert ends[0].recv(100) == b"", "the stream ends with its connection"
    forward.close()
    assert callers[1].recv(100) == b""
    assert ends[1].recv(100) == b""


def test_a_forward_that_is_refused_is_told_at_once() -> None:
    def dial() -> socket.socket:
        raise CliError("you may not")

    with pytest.raises(CliError, match="you may not"):
        Forward(dial)


def test_a_connection_that_cannot_be_made_later_breaks_off() -> None:
    made = threading.Event()

    def dial() -> socket.socket:
        if made.is_set():
            raise CliError("the pod is gone")
        made.set()
        return socket.socketpair()[0]

    forward = Forward(dial)
    socket.create_connection(("127.0.0.1", forward.port))
    later = socket.create_connection(("127.0.0.1", forward.port))
    later.settimeout(10)
    assert later.recv(100) == b""
    forward.close()


class Jobs:
    """A cluster with Secrets and an operator."""

    cluster: Any = None

    def __init__(self, secrets: dict[str, dict[str, str]], environment: dict[str, str]) -> None:
        self.secrets, self.environment = secrets, environment

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        if name not in self.secrets:
            raise CliError(f"there is no Secret {name} in namespace {namespace}")
        return self.secrets[name]

    def operator_environment(self, namespace: str) -> dict[str, str]:
        return self.environment


def platform(secrets: dict[str, dict[str, str]], **options: Any) -> Platform:
    jobs: Any = Jobs(
        secrets, {"LAKELOOP_STORAGE_ENDPOINT": "https://s3.example", "LAKELOOP_STORAGE_REGION": "eu-west-1"}
    )
    return Platform(jobs, "system", options.get("tracking"), options.get("storage"))


def access(store: Store) -> tuple[Any, Any, Any]:
    client: Any = store._client
    return client.meta.endpoint_url, client.meta.region_name, client._request_signer._credentials.access_key


def test_the_store_of_a_job() -> None:
    found = platform({"lakeloop-storage": KEYS}).store("a", {})
    assert access(found) == ("https://s3.example", "eu-west-1", "me")
    own = {"secretRef": {"name": "mine"}, "endpoint": "http://store:1", "region": "r", "pathStyle": False}
    found = platform({"mine": {**KEYS, "AWS_ACCESS_KEY_ID": "you"}}).store("a", own)
    assert access(found) == ("http://store:1", "r", "you")
    found = platform({"lakeloop-storage": KEYS}, storage="http://127.0.0.1:9").store("a", {})
    assert access(found)[0] == "http://127.0.0.1:9"


def test_keys_of_ones_own_where_the_secret_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(CliError, match="there is no Secret lakeloop-storage in namespace a"):
        platform({}).store("a", {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter3")
    assert access(platform({}).store("a", {}))[2] == "own"


def test_a_certificate_of_a_name_inside_the_cluster() -> None:
    with pytest.raises(CliError, match="give --storage-endpoint"):
        platform({"lakeloop-storage": KEYS}).store("a", {"endpoint": "https://minio.p.svc:9000"})


def test_what_the_store_refuses() -> None:
    store = Store(StoreAccess("http://store:1", "r", True, KEYS))
    assert "hunter2" not in repr(StoreAccess("http://store:1", "r", True, KEYS))
    with Stubber(store._client) as stubber:
        stubber.add_client_error("get_object", "NoSuchKey", http_status_code=404)
        stubber.add_client_error("get_object", "AccessDenied", "no", http_status_code=403)
        assert store.read("s3a://lake/a") is None
        with pytest.raises(CliError, match="the store refuses s3a://lake/a: AccessDenied: no"):
            store.read("s3a://lake/a")


# -- logs


def labelled(name: str, role: str, attempt: str, state: str = "running", **labels: str) -> dict[str, Any]:
    own = {"lakeloop.io/role": role, "lakeloop.io/attempt": attempt, **labels}
    status = {"containerStatuses": [{"name": role, "state": {state: {}}}]}
    return {"metadata": {"name": name, "labels": own}, "status": status}


PODS = [
    labelled("churn-1-2-exec-10", "executor", "2", "waiting", **{"spark-exec-id": "10"}),
    labelled("churn-1-2-exec-2", "executor", "2"),
    labelled("churn-1-2-driver", "driver", "2"),
    labelled("churn-1-1-driver", "driver", "1", "terminated"),
    labelled("stranger", "server", "1"),
    labelled("broken", "driver", "x"),
]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), ["churn-1-1-driver", "churn-1-2-driver"]),
        (Wanted(attempt=2), ["churn-1-2-driver"]),
        (Wanted(executor=10), ["churn-1-2-exec-10"]),
        (Wanted(attempt=2, everything=True), ["churn-1-2-driver", "churn-1-2-exec-2", "churn-1-2-exec-10"]),
        (Wanted(executor=3), []),
    ],
)
def test_which_pods_are_meant(wanted: Wanted, names: list[str]) -> None:
    assert [each.pod for each in log_sources.sources(PODS, wanted)] == names


def test_how_pods_are_told_apart() -> None:
    found = log_sources.sources(PODS, Wanted(everything=True))
    assert [each.label for each in found] == [
        "driver",
        "driver, attempt 2",
        "executor 2, attempt 2",
        "executor 10, attempt 2",
    ]
    assert [each.started for each in found] == [True, True, True, False]
    assert [log_sources.is_alive(pod, "driver") for pod in PODS[2:4]] == [True, False]


class Objects:
    """A store that counts what is fetched."""

    def __init__(self, **objects: str) -> None:
        self.objects = {
            f"s3a://b/logs/{name.replace('__', '-').replace('_', '.')}": text for name, text in objects.items()
        }
        self.read_: list[str] = []

    def all(self) -> list[Stored]:
        return [Stored(uri, len(text), "") for uri, text in self.objects.items()]

    def read(self, uri: str) -> bytes | None:
        self.read_.append(uri.rpartition("/")[2])
        return self.objects[uri].encode() if uri in self.objects else None


STORE = {
    "driver__2_000010_log": "e\nf\n",
    "driver__2_000002_log": "a\nb",
    "driver__2_000003_log": "c\nd\n",
    "driver__2_json": '{"complete": true}',
    "driver__1_000001_log": "x\n",
    "executor__2__3_000001_log": "y\n",
    "notes_txt": "",
}


def test_archived_logs_are_found_by_their_names() -> None:
    found = archived_logs.found_in(Objects(**STORE).all())
    assert [(each.name, each.role, each.attempt, each.executor) for each in found] == [
        ("driver-1", "driver", 1, None),
        ("driver-2", "driver", 2, None),
        ("executor-2-3", "executor", 2, 3),
    ]


@pytest.mark.parametrize(
    ("tail", "lines", "segments"), [(None, ["a", "bc", "d", "e", "f"], 3), (1, ["f"], 1), (2, ["e", "f"], 2), (0, [], 0), (9, ["a", "bc", "d", "e", "f"], 3)]
)  # fmt: skip
def test_the_last_lines_cost_no_more_than_they_need(tail: int | None, lines: list[str], segments: int) -> None:
    store = Objects(**STORE)
    log = archived_logs.found_in(store.all())[1]
    assert archived_logs.last_lines(log, store, tail) == lines
    assert len(store.read_) == segments


def test_a_log_is_complete_only_where_it_says_so() -> None:
    store = Objects(**STORE)
    first, second, _ = archived_logs.found_in(store.all())
    assert archived_logs.is_complete(second, "s3a://b/logs/", store)
    assert not archived_logs.is_complete(first, "s3a://b/logs", store)
    broken = Objects(**{**STORE, "driver__2_json": "no JSON"})
    assert not archived_logs.is_complete(second, "s3a://b/logs", broken)
