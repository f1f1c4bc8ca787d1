"""Certificates of a store's CA, in the forms in which pods take them: PEM for Python, a trust store for a JVM."""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Sequence
from typing import Final

CA_KEY: Final = "ca.crt"
CA_VOLUME: Final = "storage-ca"
TRUST_STORE_KEY: Final = "truststore.jks"
TRUST_STORE_PASSWORD: Final = "changeit"  # noqa: S105 (guards against a broken file; what is inside is public)
_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END CERTIFICATE-----")


def certificates(pem: str) -> list[bytes]:
    """The certificates in a bundle, as DER, each once. All else in it, a private key too, is left behind.

    Raises ValueError where there is none.
    """
    try:
        found = [base64.b64decode("".join(block.split()), validate=True) for block in _BLOCK.findall(pem)]
    except binascii.Error as error:
        raise ValueError(f"a certificate is not in base64: {error}") from error
    if not found:
        raise ValueError("there is no `-----BEGIN CERTIFICATE-----`")
    return list(dict.fromkeys(found))


def as_pem(found: Sequence[bytes]) -> str:
    """A bundle of these."""
    return "".join(f"-----BEGIN CERTIFICATE-----\n{_lines(each)}-----END CERTIFICATE-----\n" for each in found)


def _lines(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return "".join(f"{text[at : at + 64]}\n" for at in range(0, len(text), 64))


def java_options(folder: str) -> str:
    """Has a JVM trust what the trust store in the folder holds, and nothing else."""
    options = {"": f"{folder}/{TRUST_STORE_KEY}", "Type": "JKS", "Password": TRUST_STORE_PASSWORD}
    return " ".join(f"-Djavax.net.ssl.trustStore{name}={value}" for name, value in options.items())


def trust_store(found: Sequence[bytes]) -> bytes:
    """A Java key store of the kind JKS, which a JVM reads without help.

    The format is that of `sun.security.provider.JavaKeyStore`: a version, for each certificate a tag, an alias, a date,
    its kind and its bytes, and at the end a digest over a salt and all of that.
    """
    store = struct.pack(">III", 0xFEEDFEED, 2, len(found))
    for at, der in enumerate(found):
        store += struct.pack(">I", 2) + _text(f"ca-{at}") + struct.pack(">Q", 0) + _text("X.509")
        store += struct.pack(">I", len(der)) + der
    salted = TRUST_STORE_PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + store
    return store + hashlib.sha1(salted).digest()  # noqa: S324 (what the format asks for)


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode("ascii")
