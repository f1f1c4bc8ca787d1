"""What the server does under load, under attack, and on its way out."""

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from server.server_processes import HTTP, Process, poll, serving

Saved = Callable[[str], Path]
FRAME = {"dataframe_records": [{"tenure": 1, "spend": 5}]}
CHUNKED = b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def echo(word: str) -> dict[str, list[dict[str, object]]]:
    return {"dataframe_records": [{"word": word, "count": 1, "amount": 1.5, "flag": True}]}


def value(process: Process, start: str) -> float:
    """The sum of the metric lines that start so."""
    lines = HTTP.get(f"{process.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))


class Load:
    """Callers that keep their connections until they are told to close them, then come back to the next server."""

    def __init__(self, urls: list[str], callers: int = 4) -> None:
        self.urls = urls
        self.answered = 0
        self.by_server = dict.fromkeys(urls, 0)
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        at = 0
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60)
        client = httpx.Client(limits=limits, timeout=60)
        while not self._stop.is_set():
            url = self.urls[at]
            try:
                answer = client.post(f"{url}/invocations", json=FRAME)
            except httpx.TransportError as error:
                with self._lock:
                    self.problems.append(repr(error))
                return
            with self._lock:
                self.answered += 1
                self.by_server[url] += 1
                if answer.status_code != 200:
                    self.problems.append(f"{answer.status_code} {answer.text}")
            if answer.headers.get("connection") == "close":
                # What a Service does: a new connection goes to a server that is ready
                at = (at + 1) % len(self.urls)
        client.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_is_lost_through_sigterm(workers: str, saved: Saved, tmp_path: Path) -> None:
    uri = f"file://{saved('classifier')}"
    with (
        serving(uri, tmp_path / "a", LAKELOOP_WORKERS=workers) as leaving,
        serving(uri, tmp_path / "b") as staying,
        Load([leaving.url, staying.url]) as load,
    ):
        poll(lambda: load.answered > 200, 60)
        started = time.monotonic()
        assert leaving.stop() == 0
        assert time.monotonic() - started < 8, "it waited although no connection was open"
        enough = load.answered + 100
        poll(lambda: load.answered > enough or load.problems, 60)
    assert load.problems == []
    assert min(load.by_server.values()) > 0


def test_a_long_request_is_finished_while_new_ones_are_answered(saved: Saved, tmp_path: Path) -> None:
    with (
        serving(f"file://{saved('echo')}", tmp_path) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        long = pool.submit(httpx.post, f"{process.url}/invocations", json=echo("sleep:2"), timeout=60)
        poll(lambda: value(process, "lakeloop_server_in_flight") == 1)
        process.popen.terminate()
        poll(lambda: HTTP.get(f"{process.url}/ping").status_code == 503)
        late = HTTP.post(f"{process.url}/invocations", json=echo("late"))
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        assert HTTP.get(f"{process.url}/live").status_code == 200
        answer = long.result()
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert process.popen.wait(10) == 0


def test_an_idle_connection_does_not_hold_the_server_past_its_deadline(saved: Saved, tmp_path: Path) -> None:
    with (
        serving(f"file://{saved('classifier')}", tmp_path, LAKELOOP_DRAIN_SECONDS="2") as process,
        httpx.Client() as client,
    ):
        assert client.get(f"{process.url}/ping").status_code == 200
        started = time.monotonic()
        assert process.stop() == 0
        assert 1.5 < time.monotonic() - started < 6


def test_whoever_comes_while_the_proxies_still_send_is_answered_and_no_connection_is_kept(
    saved: Saved, tmp_path: Path
) -> None:
    with (
        serving(f"file://{saved('classifier')}", tmp_path, LAKELOOP_DRAIN_LEAST_SECONDS="2") as process,
        httpx.Client() as kept,
    ):
        assert "connection" not in kept.post(f"{process.url}/invocations", json=FRAME).headers
        started = time.monotonic()
        process.popen.terminate()
        poll(lambda: HTTP.get(f"{process.url}/ping").status_code == 503)
        assert kept.post(f"{process.url}/invocations", json=FRAME).headers["connection"] == "close"
        assert time.monotonic() - started < 1.5
        # Nobody is connected now, for longer than a server waits that nobody may be sent to any more.
        poll(lambda: time.monotonic() - started > 1.5)
        assert HTTP.post(f"{process.url}/invocations", json=FRAME).status_code == 200
        assert process.popen.wait(10) == 0
        assert 2 <= time.monotonic() - started < 5


def test_oversized_bodies_are_refused_and_the_server_lives(saved: Saved, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    with serving(f"file://{saved('classifier')}", tmp_path, LAKELOOP_MAX_BODY_BYTES="10000") as process:
        headers = {"content-type": "application/json"}
        for content in (b" " * 5_000_000, chunks()):
            answer = HTTP.post(f"{process.url}/invocations", content=content, headers=headers)
            assert answer.status_code == 413
            assert answer.json()["error_code"] == "REQUEST_TOO_LARGE"
        assert HTTP.post(f"{process.url}/invocations", content=b" " * 9_000, headers=headers).status_code == 400
        assert HTTP.post(f"{process.url}/invocations", json=FRAME).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(b"POST /invocations HTTP/1.1\r\nContent-Length: -5\r\n\r\n", id="negative length"),
        pytest.param(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf", id="half a body"),
        pytest.param(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n", id="long path"),
        pytest.param(b"\x00" * 1000, id="zeros"),
    ],
)
def test_broken_http_does_not_break_the_server(raw: bytes, ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as connection:
        connection.sendall(raw)
    assert HTTP.post(f"{process.url}/invocations", json=FRAME).status_code == 200


def answer_to(process: Process, raw: bytes, timeout: float = 40) -> bytes:
    """What the server says to raw bytes until it closes the connection."""
    said = b""
    with (
        socket.create_connection(("127.0.0.1", process.port), timeout=timeout) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(raw)
        while chunk := connection.recv(65536):
            said += chunk
    return said


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, id="TLS"),
        pytest.param(b"POST /invocations HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, id="length"),
        pytest.param(b"GET /ping HTTP/1.1\r\n" + b"x: y\r\n" * 80_000, 431, id="many headers"),
        pytest.param(b"GET /ping HTTP/1.1\r\nx: " + b"y" * 500_000, 431, id="a long header"),
        pytest.param(b"GET /" + b"a" * 500_000, 431, id="a long path"),
        pytest.param(b"\r\n" * 250_000, 431, id="empty lines"),
        pytest.param(CHUNKED + b"zz\r\n{}", 400, id="no chunk"),
        pytest.param(CHUNKED + b"f" * 20 + b"\r\n{}", 400, id="an endless chunk"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n0\r\n" + b"x: y\r\n" * 80_000, 431, id="endless trailers"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip") + b"{}", 400, id="another transfer encoding"),
    ],
)
def test_what_is_no_request_is_refused_as_json(raw: bytes, status: int, ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    head, _, body = answer_to(process, raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-lakeloop-model: churn/5" in head
    assert set(json.loads(body)) == {"error_code", "message"}
    assert HTTP.post(f"{process.url}/invocations", json=FRAME).status_code == 200


def test_an_offer_of_http_2_is_passed_over(ours: Callable[[str], Process]) -> None:
    """What Java's HttpClient sends with its first request; `mlflow models serve` on h11 answers it, on httptools not."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAAAAIAAAAB"}
    with httpx.Client() as client:
        url = f"{ours('classifier').url}/invocations"
        answers = [client.post(url, json=FRAME, headers=headers) for headers in (offer, {}, offer)]
    assert [answer.status_code for answer in answers] == [200] * 3


def test_a_request_is_answered_although_nonsense_follows_it(ours: Callable[[str], Process]) -> None:
    body = json.dumps(FRAME).encode()
    head = b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    said = answer_to(ours("classifier"), head + body + b"nonsense\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.count(b"HTTP/1.1") == 1


def test_a_head_that_never_ends_is_given_up(ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    started = time.monotonic()
    head, _, body = answer_to(process, b"GET /ping HTTP/1.1\r\nx: ").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error_code"] == "REQUEST_TIMEOUT"
    assert 15 < time.monotonic() - started < 30


def test_more_connections_than_files_do_not_lock_others_out(saved: Saved, tmp_path: Path) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, files[1]))
    try:
        context = serving(f"file://{saved('classifier')}", tmp_path)
        process = context.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    idle: list[socket.socket] = []
    try:
        for _ in range(600):
            idle.append(socket.create_connection(("127.0.0.1", process.port), timeout=10))
            idle[-1].sendall(b"GET /ping HTTP/1.1\r\n")
        assert HTTP.get(f"{process.url}/live", timeout=10).status_code == 200
        assert HTTP.post(f"{process.url}/invocations", json=FRAME, timeout=10).status_code == 200
    finally:
        for connection in idle:
            connection.close()
        context.__exit__(None, None, None)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/../../../etc/passwd",
        "/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v2/models/churn/versions/../../../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/invocations/../../etc/passwd",
        "/%00",
        "/%ff%fe",
    ],
)
def test_paths_lead_nowhere(path: str, ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    raw = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    head, _, body = answer_to(process, raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"x-lakeloop-model: churn/5" in head
    assert b"root:" not in body
    assert json.loads(body)["message"] in ("Not Found", "This server serves churn version 5")


def workers_of(process: Process) -> list[int]:
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_a_small_body_that_stands_for_a_huge_table_is_refused(saved: Saved, tmp_path: Path) -> None:
    with serving(f"file://{saved('classifier')}", tmp_path, LAKELOOP_REQUEST_TIMEOUT_SECONDS="300") as process:
        (worker,) = workers_of(process)
        own, _ = resource.prlimit(worker, resource.RLIMIT_DATA)
        assert own != resource.RLIM_INFINITY
        # As in a container that has a gigabyte left
        status = Path(f"/proc/{worker}/status").read_text()
        has = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
        resource.prlimit(worker, resource.RLIMIT_DATA, (has + 2**30, own))
        sparse = {"dataframe_records": [{f"column-{i}": 1} for i in range(20_000)]}
        scalar = {"dataframe_split": {"columns": list(range(20_000)), "index": list(range(20_000)), "data": 1}}
        text = {"inputs": {"tenure": ["x" * 100_000, *["y"] * 20_000], "spend": [1]}}
        table = "a," * 4_000 + "\n" + "1\n" * 60_000
        bodies = [("application/json", json.dumps(body)) for body in (sparse, scalar, text)]
        for content_type, body in [*bodies, ("text/csv", table)]:
            headers = {"content-type": content_type}
            answer = HTTP.post(f"{process.url}/invocations", content=body, headers=headers, timeout=300)
            assert answer.status_code == 400, answer.text
        assert HTTP.post(f"{process.url}/invocations", json=FRAME).status_code == 200
        assert workers_of(process) == [worker]


def test_bodies_together_are_bounded(saved: Saved, tmp_path: Path) -> None:
    with serving(f"file://{saved('classifier')}", tmp_path, LAKELOOP_MAX_BODY_BYTES="100000") as process:
        head = b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        held = [socket.create_connection(("127.0.0.1", process.port), timeout=20) for _ in range(12)]
        try:
            for connection in held:
                connection.sendall(head + b" " * 90_000)
            refused = 0

            def enough() -> bool:
                return value(process, "lakeloop_server_overloads_total") == 4

            poll(enough)
            assert HTTP.get(f"{process.url}/ping").status_code == 200
            for connection in held[-4:]:
                refused += connection.recv(100).startswith(b"HTTP/1.1 503 ")
            assert refused == 4
        finally:
            for connection in held:
                connection.close()
        poll(lambda: HTTP.post(f"{process.url}/invocations", json=FRAME).status_code == 200)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/invocations", 405), ("GET", "/nothing", 404)])
def test_other_routes_are_json_errors(method: str, path: str, status: int, ours: Callable[[str], Process]) -> None:
    answer = HTTP.request(method, ours("classifier").url + path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error_code", "message"}
    assert answer.headers["x-lakeloop-model"] == "churn/5"


def test_a_crowd_is_told_to_come_back_while_probes_are_answered(saved: Saved, tmp_path: Path) -> None:
    with (
        serving(f"file://{saved('echo')}", tmp_path, LAKELOOP_THREADS="1", LAKELOOP_MAX_QUEUE="2") as process,
        ThreadPoolExecutor(8) as pool,
    ):
        sent = [
            pool.submit(httpx.post, f"{process.url}/invocations", json=echo("sleep:1"), timeout=60) for _ in range(8)
        ]
        poll(lambda: value(process, "lakeloop_server_overloads_total") == 5)
        started = time.monotonic()
        assert HTTP.get(f"{process.url}/ping").status_code == 200
        assert time.monotonic() - started < 0.9, "predictions hold up the event loop"
        answers = [future.result() for future in sent]
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert (refused.headers["retry-after"], refused.json()["error_code"]) == ("1", "TEMPORARILY_UNAVAILABLE")


def test_a_prediction_that_takes_too_long_is_given_up(saved: Saved, tmp_path: Path) -> None:
    with serving(f"file://{saved('echo')}", tmp_path, LAKELOOP_REQUEST_TIMEOUT_SECONDS="1") as process:
        answer = HTTP.post(f"{process.url}/invocations", json=echo("sleep:3"), timeout=30)
        assert (answer.status_code, answer.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")


def test_what_nobody_waits_for_any_more_is_not_begun(saved: Saved, tmp_path: Path) -> None:
    with (
        serving(
            f"file://{saved('echo')}", tmp_path, LAKELOOP_REQUEST_TIMEOUT_SECONDS="2", LAKELOOP_THREADS="1"
        ) as process,
        ThreadPoolExecutor(6) as pool,
    ):
        sent = [
            pool.submit(httpx.post, f"{process.url}/invocations", json=echo("sleep:3"), timeout=60) for _ in range(6)
        ]
        assert [future.result().status_code for future in sent] == [504] * 6
        # One of them is still running; the five that waited would take another quarter of a minute
        started = time.monotonic()
        poll(lambda: value(process, "lakeloop_server_in_flight") == 0)
        assert time.monotonic() - started < 4


def test_predictions_that_never_end_do_not_stop_the_server_for_ever(saved: Saved, tmp_path: Path) -> None:
    with (
        serving(f"file://{saved('echo')}", tmp_path, LAKELOOP_REQUEST_TIMEOUT_SECONDS="1") as process,
        ThreadPoolExecutor(2) as pool,
    ):
        (worker,) = workers_of(process)
        sent = [
            pool.submit(httpx.post, f"{process.url}/invocations", json=echo("sleep:1000"), timeout=60) for _ in range(2)
        ]
        assert [future.result().status_code for future in sent] == [504, 504]

        def answers() -> bool:
            try:
                return HTTP.post(f"{process.url}/invocations", json=echo("again"), timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        poll(answers)
        assert workers_of(process) != [worker]


def test_a_model_that_exits_does_not_end_the_server(ours: Callable[[str], Process]) -> None:
    process = ours("echo")
    before = workers_of(process)
    answer = HTTP.post(f"{process.url}/invocations", json=echo("exit"))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    assert workers_of(process) == before


def test_metrics_are_answered_under_load(ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    with Load([process.url]) as load:
        poll(lambda: load.answered > 20, 60)
        answers = [HTTP.get(f"{process.url}/metrics") for _ in range(50)]
    assert load.problems == []
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.text.count("lakeloop_server_in_flight{") == 1 for answer in answers)


def test_a_worker_that_dies_is_replaced_without_loading_again(saved: Saved, tmp_path: Path) -> None:
    with serving(f"file://{saved('echo')}", tmp_path) as process:
        assert HTTP.post(f"{process.url}/invocations", json=echo("hello")).status_code == 200
        with pytest.raises(httpx.TransportError):
            HTTP.post(f"{process.url}/invocations", json=echo("die"))
        started = time.monotonic()
        assert HTTP.post(f"{process.url}/invocations", json=echo("again"), timeout=10).status_code == 200
        assert time.monotonic() - started < 10
        assert process.log.count('"loaded sha256') == 1
        # Counters outlive the process that counted
        assert value(process, 'lakeloop_server_requests_total{code="200",model="churn",route="/invocations"') == 2


def test_workers_share_the_model_and_add_up_their_metrics(saved: Saved, tmp_path: Path) -> None:
    with serving(f"file://{saved('classifier')}", tmp_path, LAKELOOP_WORKERS="2") as process:
        for _ in range(40):
            with httpx.Client() as client:
                assert client.post(f"{process.url}/invocations", json=FRAME).status_code == 200
        HTTP.post(f"{process.url}/invocations", content=b"x", headers={"content-type": "application/json"})
        start = 'lakeloop_server_requests_total{code="%s",model="churn",route="/invocations",version="5"}'
        assert value(process, start % 200) == 40
        assert value(process, start % 400) == 1
        assert value(process, "lakeloop_server_model_info") == 1
        counted = 'lakeloop_server_request_duration_seconds_count{model="churn",route="/invocations",version="5"}'
        assert value(process, counted) == 41
        children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text().split()
        assert len(children) == 2
        memory = [
            dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
            for pid in children
        ]
        for child in memory:
            resident, proportional = (int(child[key].split()[0]) for key in ("Rss", "Pss"))
            assert proportional < 0.6 * resident, "the workers do not share the model's memory"


def test_the_model_failing_is_counted_apart(ours: Callable[[str], Process]) -> None:
    process = ours("echo")
    before = value(process, "lakeloop_server_model_failures_total")
    assert HTTP.post(f"{process.url}/invocations", json=echo("raise")).status_code == 400
    assert HTTP.post(f"{process.url}/invocations", json={"dataframe_records": [{}]}).status_code == 400
    assert value(process, "lakeloop_server_model_failures_total") == before + 1
