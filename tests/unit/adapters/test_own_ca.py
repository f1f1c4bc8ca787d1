"""A store whose certificate only its object's own CA vouches for, over real TLS."""

import datetime
import functools
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lakeloop.adapters import delta_loading
from lakeloop.adapters.object_store import S3Stores
from lakeloop.adapters.object_store_protocol import StorageAccess, StorageUnavailable


def authority(folder: Path) -> tuple[Path, Path, Path]:
    """A CA's certificate; and a certificate that it gave 127.0.0.1, with its key."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "store")}
    names = {name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in keys}
    for name, key in keys.items():
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["ca"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .sign(keys["ca"], hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "store.key").write_bytes(
        keys["store"].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "ca.crt", folder / "store.crt", folder / "store.key"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder: as much of S3 as a GET of an object needs."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Endpoint, and the CA in PEM form."""
    ca, certificate, key = authority(tmp_path)
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake/hello").write_text("hello")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    # shutdown waits for as long as the server polls
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}", ca.read_text()
    server.shutdown()
    server.server_close()


def access(endpoint: str, ca: str | None) -> StorageAccess:
    return StorageAccess(endpoint, "us-east-1", True, "me", "hunter2", ca=ca)


async def test_it_is_believed_for_this_object_alone(served: tuple[str, str]) -> None:
    endpoint, ca = served
    stores = S3Stores()
    try:
        assert await stores.connect(access(endpoint, ca)).read("s3a://lake/hello") == b"hello"
        with pytest.raises(StorageUnavailable):
            await stores.connect(access(endpoint, None)).read("s3a://lake/hello")
    finally:
        stores.close()


@pytest.mark.parametrize("known", [True, False], ids=["own CA", "another CA"])
async def test_deltalake_believes_it_in_a_process_of_its_own(
    served: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    endpoint, ca = served
    options = delta_loading.storage_options
    # the answer stays the same however often it is asked
    monkeypatch.setattr(delta_loading, "storage_options", lambda found: {**options(found), "max_retries": "0"})
    if not known:
        (tmp_path / "other").mkdir()
        ca = authority(tmp_path / "other")[0].read_text()
    with pytest.raises(StorageUnavailable) as failed:
        await delta_loading.load_apart(access(endpoint, ca), "s3a://lake/table", ["a"])
    # with the right CA the answer is heard: there is no table
    assert ("certificate" in failed.value.message.lower()) is not known, failed.value.message
    assert "hunter2" not in failed.value.message
