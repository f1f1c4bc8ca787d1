"""An object store in memory that speaks as much of S3 as Delta does through S3A. For the build of the image only.

Protocol: https://docs.aws.amazon.com/AmazonS3/latest/API (ListObjectsV2, Get, Head, Put with If-None-Match, Delete,
CopyObject, DeleteObjects). Nothing is authenticated and one bucket is as good as another.
"""

from __future__ import annotations

import hashlib
import re
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

# All objects have this age: Delta refuses to travel back to what looks older than its retention.
_STARTED = datetime.now(UTC)
_XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def unchunk(body: bytes) -> bytes:
    """The content of an ``aws-chunked`` body (``<hex size>[;signature]\\r\\n<bytes>\\r\\n`` … ``0``, then trailers)."""
    content, rest = b"", body
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if size == 0:
            break
        content, rest = content + rest[:size], rest[size + 2 :]
    return content


def listing(objects: dict[str, bytes], bucket: str, query: dict[str, list[str]]) -> str:
    """The answer to ListObjectsV2, in one page."""
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    after = query.get("start-after", [""])[0]
    contents, folders = [], set()
    for key in sorted(objects):
        if not key.startswith(prefix) or key <= after:
            continue
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if found:
            folders.add(prefix + head + delimiter)
            continue
        contents.append(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_STARTED:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{_etag(objects[key])}</ETag><Size>{len(objects[key])}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    common = "".join(
        f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders)
    )
    return (
        f"<ListBucketResult {_XMLNS}><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
        f"<KeyCount>{len(contents) + len(folders)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>false</IsTruncated>{''.join(contents)}{common}</ListBucketResult>"
    )


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    lock: threading.Lock

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _where(self) -> tuple[str, str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        return bucket, key, parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunked = "aws-chunked" in (self.headers.get("Content-Encoding") or "")
        return unchunk(body) if chunked else body

    def _answer(self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("x-amz-request-id", "0")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        body = (
            b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        )
        self._answer(status, body, Content_Type="application/xml")

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        bucket, key, query = self._where()
        if not key:
            body = listing(self.objects, bucket, query).encode() if "list-type" in query else b"<x/>"
            self._answer(200, b"" if self.command == "HEAD" else body, Content_Type="application/xml")
            return
        content = self.objects.get(key)
        if content is None:
            self._error(404, "NoSuchKey")
            return
        head = {
            "ETag": _etag(content),
            "Last_Modified": _STARTED.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "Accept_Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if self.command == "HEAD":
            self._answer(200, length=len(content), **head)
        elif asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            span = f"bytes {first}-{last}/{len(content)}"
            self._answer(206, content[first : last + 1], Content_Range=span, **head)
        else:
            self._answer(200, content, **head)

    def do_PUT(self) -> None:
        _, key, _ = self._where()
        content = self._body()
        source = unquote(self.headers.get("x-amz-copy-source") or "").lstrip("/").partition("/")[2]
        if source:
            content = self.objects[source]
        with self.lock:
            if self.headers.get("If-None-Match") == "*" and key in self.objects:
                self._error(412, "PreconditionFailed")
                return
            self.objects[key] = content
        result = f"<CopyObjectResult {_XMLNS}><ETag>{_etag(content)}</ETag></CopyObjectResult>" if source else ""
        self._answer(200, result.encode(), ETag=_etag(content))

    def do_DELETE(self) -> None:
        self.objects.pop(self._where()[1], None)
        self._answer(204)

    def do_POST(self) -> None:
        for key in re.findall(r"<Key>(.*?)</Key>", self._body().decode()):
            self.objects.pop(key, None)
        self._answer(200, f"<DeleteResult {_XMLNS}/>".encode(), Content_Type="application/xml")


def serve(objects: dict[str, bytes], port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Starts a store that holds ``objects`` on a port of the loopback (0: a free one); gives the server and its URL."""
    handler = type("Handler", (_Handler,), {"objects": dict(objects), "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"
