"""What is read of a request before httptools sees it."""

import pytest
from lakeloop_server.protocol import without_upgrade

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
BODY = b"\r\n\r\n{}\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(HEAD + BODY, HEAD + BODY, id="none"),
        pytest.param(HEAD + b"Upgrade: h2c" + BODY, HEAD + b"x-ignored-upgrade: h2c" + BODY, id="one"),
        pytest.param(
            HEAD + b"UPGRADE : a\r\nupgrade:b", HEAD + b"x-ignored-upgrade: a\r\nx-ignored-upgrade:b", id="two"
        ),
        pytest.param(HEAD + b"x: upgrade: h2c" + BODY, HEAD + b"x: upgrade: h2c" + BODY, id="a value"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_an_offer_of_another_protocol_is_hidden(data: bytes, expected: bytes) -> None:
    assert without_upgrade(data) == expected
