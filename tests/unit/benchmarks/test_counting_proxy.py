"""The benchmark's proxy passes everything on, and counts requests however their bytes are cut."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from counting_proxy import CountingProxy, Request, RequestLines


class Store(BaseHTTPRequestHandler):
    """Answers with what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self.path.encode())

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_requests_are_passed_on_and_counted() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        with CountingProxy("127.0.0.1", store.server_port) as proxy:
            connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=5)
            found = []
            for method, path, body in [
                ("GET", "/lake?list-type=2&prefix=a", None),
                ("PUT", "/lake/a", b"x" * 200_000),
                ("GET", "/lake/a", None),
            ]:
                connection.request(method, path, body)
                found.append(connection.getresponse().read())
            connection.close()
        store.shutdown()
    assert found == [b"/lake?list-type=2&prefix=a", b"x" * 200_000, b"/lake/a"]
    assert [each.kind for each in proxy.requests] == ["LIST", "PUT", "GET"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_first_line_may_come_in_pieces(size: int) -> None:
    sent = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyzHEAD /c HTTP/1.1\r\n\r\n"
    found: list[Request] = []
    lines = RequestLines(found.append)
    for start in range(0, len(sent), size):
        lines.look(sent[start : start + size])
    assert [(each.method, each.target) for each in found] == [("GET", "/a"), ("PUT", "/b"), ("HEAD", "/c")]
