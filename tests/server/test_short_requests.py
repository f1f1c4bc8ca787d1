"""Requests that are answered before an application sees them: the same answers, however they arrive."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from server.server_processes import HTTP, Process, poll, serving

BODY = json.dumps({"dataframe_records": [{"tenure": 1, "spend": 5}]}).encode()
TWO = json.dumps({"dataframe_split": {"columns": ["spend", "tenure"], "data": [[5, 1], [8, 4.5]]}}).encode()
NONE = b'{"dataframe_records": [{"tenure": null, "spend": 5}]}'


def post(body: bytes, *headers: bytes, version: bytes = b"1.1", length: int | None = None) -> bytes:
    """A request for a prediction."""
    lines = [b"POST /invocations HTTP/" + version, b"Host: x", b"Content-Type: application/json", *headers]
    lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def short(process: Process) -> float:
    """How many predictions were made without a DataFrame."""
    start = 'lakeloop_server_stage_seconds_count{model="churn",stage="predict",version="5",way="numbers"}'
    lines = HTTP.get(f"{process.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))


class Caller:
    """One connection."""

    def __init__(self, process: Process) -> None:
        self._socket = socket.create_connection(("127.0.0.1", process.port), timeout=60)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Sends, at once."""
        self._socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer; status 0: none, the connection is closed."""
        line = self._file.readline()
        if not line:
            return 0, {}, b""
        headers = {}
        while (header := self._file.readline().strip()) != b"":
            name, _, value = header.decode().partition(": ")
            headers[name] = value
        return int(line.split()[1]), headers, self._file.read(int(headers["content-length"]))


@pytest.fixture(scope="module")
def long(ours: Callable[[str], Process]) -> dict[bytes, bytes]:
    """Answers of MLflow's own code: params are nothing that goes a short way."""
    url = f"{ours('classifier').url}/invocations"
    before = short(ours("classifier"))
    answers = {body: httpx.post(url, json={**json.loads(body), "params": {}}).content for body in (BODY, TWO)}
    assert short(ours("classifier")) == before
    return answers


def pieces(request: bytes) -> Iterator[list[bytes]]:
    """The same request as it may come through a network."""
    head, end, body = request.partition(b"\r\n\r\n")
    yield [request]
    yield [head + end, body]
    yield [head + end + body[:5], body[5:]]
    yield [head[:30], head[30:] + end, body[:1], body[1:]]


@pytest.mark.parametrize("way", range(4))
@pytest.mark.parametrize("body", [BODY, TWO])
def test_answers_are_the_same_however_a_request_arrives(
    way: int, body: bytes, long: dict[bytes, bytes], ours: Callable[[str], Process]
) -> None:
    process = ours("classifier")
    before = short(process)
    with Caller(process) as caller:
        for _ in range(2):
            for piece in list(pieces(post(body)))[way]:
                caller.send(piece)
                time.sleep(0.02)  # so that it travels alone; nothing depends on it
            status, headers, content = caller.answer()
            assert (status, content) == (200, long[body])
            assert headers["content-type"] == "application/json"
            assert headers["x-lakeloop-model"] == "churn/5"
            assert "date" in headers
    assert short(process) == before + 2


def test_headers_are_those_of_the_application(ours: Callable[[str], Process]) -> None:
    with Caller(ours("classifier")) as caller:
        caller.send(post(BODY))
        short_headers = caller.answer()[1]
        caller.send(post(BODY, b"Expect: x"))
        long_headers = caller.answer()[1]
    assert list(short_headers) == list(long_headers)
    assert {**short_headers, "date": ""} == {**long_headers, "date": ""}


def test_a_row_of_requests_is_answered_in_order(long: dict[bytes, bytes], ours: Callable[[str], Process]) -> None:
    with Caller(ours("classifier")) as caller:
        bodies = [BODY, TWO, NONE, BODY, TWO, b"{", TWO] * 3
        caller.send(b"".join(post(body) for body in bodies))
        answers = [caller.answer() for _ in bodies]
    assert [answer[0] for answer in answers] == [200 if body in long else 400 for body in bodies]
    for body, (_, _, content) in zip(bodies, answers, strict=True):
        assert body not in long or content == long[body]


def test_what_is_unusual_is_answered_as_ever(long: dict[bytes, bytes], ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    chunked = b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Caller(process) as caller:
        caller.send(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert caller.answer()[::2] == (200, long[BODY])
        caller.send(post(BODY, b"Content-Encoding: gzip"))
        assert caller.answer()[0] == 415
        caller.send(post(BODY, b"Expect: 100-continue"))
        assert caller._file.readline().startswith(b"HTTP/1.1 100 ")
        assert caller._file.readline() == b"\r\n"
        assert caller.answer()[::2] == (200, long[BODY])
        caller.send(post(BODY, b"Upgrade: h2c", b"Connection: Upgrade"))
        assert caller.answer()[::2] == (200, long[BODY])
        caller.send(post(BODY + b" " * 100_000))
        assert caller.answer()[::2] == (200, long[BODY])
        caller.send(post(b"x", length=1))
        assert caller.answer()[0] == 400


@pytest.mark.parametrize(("version", "header"), [(b"1.0", b"x: y"), (b"1.1", b"Connection: close")])
def test_a_connection_that_is_not_kept_is_closed(
    version: bytes, header: bytes, long: dict[bytes, bytes], ours: Callable[[str], Process]
) -> None:
    with Caller(ours("classifier")) as caller:
        caller.send(post(BODY, header, version=version))
        status, headers, content = caller.answer()
        assert (status, headers["connection"], content) == (200, "close", long[BODY])
        assert caller.answer()[0] == 0


def test_a_body_that_is_late_is_waited_for(long: dict[bytes, bytes], ours: Callable[[str], Process]) -> None:
    """Longer than such requests are held for."""
    with Caller(ours("classifier")) as caller:
        head, end, body = post(BODY).partition(b"\r\n\r\n")
        caller.send(head + end + body[:3])
        time.sleep(1.5)
        caller.send(body[3:])
        assert caller.answer()[::2] == (200, long[BODY])
        caller.send(post(TWO))
        assert caller.answer()[::2] == (200, long[TWO])


def test_callers_that_leave_in_the_middle_do_no_harm(ours: Callable[[str], Process]) -> None:
    process = ours("classifier")
    for end in (40, len(post(BODY)) - len(BODY), len(post(BODY)) - 1, len(post(BODY))):
        with Caller(process) as caller:
            caller.send(post(BODY)[:end])
    assert HTTP.post(
        f"{process.url}/invocations", content=BODY, headers={"content-type": "application/json"}
    ).is_success
    assert "unexpected" not in process.log


def test_nothing_is_short_while_the_server_leaves(
    saved: Callable[[str], Path], long: dict[bytes, bytes], tmp_path: Path
) -> None:
    with serving(f"file://{saved('classifier')}", tmp_path) as process, Caller(process) as caller:
        caller.send(post(BODY))
        assert "connection" not in caller.answer()[1]
        head, end, body = post(BODY).partition(b"\r\n\r\n")
        caller.send(head + end)
        process.popen.terminate()
        poll(lambda: HTTP.get(f"{process.url}/ping").status_code == 503)
        caller.send(body)
        status, headers, content = caller.answer()
        assert (status, headers["connection"], content) == (200, "close", long[BODY])
        assert process.popen.wait(20) == 0


def test_short_answers_are_counted(ours: Callable[[str], Process]) -> None:
    process = ours("classifier")

    def counted() -> float:
        start = 'lakeloop_server_requests_total{code="200",model="churn",route="/invocations",version="5"}'
        lines = HTTP.get(f"{process.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    before = counted()
    with Caller(process) as caller:
        for _ in range(3):
            caller.send(post(BODY))
            assert caller.answer()[0] == 200
    assert counted() == before + 3
