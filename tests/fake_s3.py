"""A small S3 over HTTP, as much of it as reading a Delta log takes, in memory."""

from datetime import UTC, datetime
from xml.sax.saxutils import escape

from aiohttp import web
from served_app import ServedApp


class FakeS3(ServedApp):
    """Serves one bucket after another on a port of loopback, in a thread of its own. Knows no keys."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        """`bucket/key` → content and when it was put there."""
        self.requests: list[str] = []
        """`LIST <prefix>` and `GET <key>`."""

    def put(self, where: str, content: bytes) -> None:
        """Puts an object to `bucket/key`."""
        self.objects[where] = (content, datetime.now(UTC))

    async def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{bucket}", self._list)
        app.router.add_get("/{bucket}/{key:.+}", self._get)
        return app

    async def _list(self, request: web.Request) -> web.Response:
        bucket, prefix = request.match_info["bucket"], request.query.get("prefix", "")
        after = request.query.get("continuation-token") or request.query.get("start-after", "")
        most = int(request.query.get("max-keys", "1000"))
        self.requests.append(f"LIST {bucket}/{prefix}")
        keys = [each.partition("/")[2] for each in sorted(self.objects) if each.startswith(f"{bucket}/{prefix}")]
        found = [key for key in keys if key > after]
        shown = found[:most]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}</LastModified>"
            f'<ETag>"e"</ETag><Size>{len(content)}</Size></Contents>'
            for key in shown
            for content, time in [self.objects[f"{bucket}/{key}"]]
        )
        more = len(found) > most
        token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        text = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
        )
        return web.Response(text=text, content_type="application/xml")

    async def _get(self, request: web.Request) -> web.Response:
        where = f"{request.match_info['bucket']}/{request.match_info['key']}"
        self.requests.append(f"GET {where}")
        if where not in self.objects:
            text = "<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
            return web.Response(status=404, text=text, content_type="application/xml")
        return web.Response(body=self.objects[where][0])
