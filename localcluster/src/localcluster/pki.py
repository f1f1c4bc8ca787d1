"""Certificates of a cluster: one CA per trust relation, short EC keys, all made once and kept.

Shapes follow kubeadm (https://kubernetes.io/docs/setup/best-practices/certificates/): the cluster CA signs the API
server, the kubelet and the clients; etcd and the aggregation layer have CAs of their own, so that no certificate that
the cluster signs opens etcd or speaks for another user.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster.identity import API_SERVICE_ADDRESS

_LIFETIME = dt.timedelta(days=3650)


@dataclass(frozen=True)
class Authority:
    """A CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Leaf:
    """What a certificate says: who (CN and O), under which names and addresses, and for which use."""

    name: str  # file name without .crt
    common_name: str
    organizations: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()  # DNS names and addresses
    server: bool = False
    client: bool = True
    authority: str = "ca"


AUTHORITIES = ("ca", "etcd-ca", "front-proxy-ca")


def leaves(node_name: str, node_address: IPv4Address) -> tuple[Leaf, ...]:
    """Every certificate that a one-node cluster needs."""
    api_hosts = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        str(node_address),
        str(API_SERVICE_ADDRESS),
    )
    return (
        Leaf("apiserver", "kube-apiserver", hosts=api_hosts, server=True, client=False),
        Leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
        Leaf("apiserver-etcd-client", "kube-apiserver-etcd-client", authority="etcd-ca"),
        Leaf("front-proxy-client", "front-proxy-client", authority="front-proxy-ca"),
        Leaf("etcd", "etcd", hosts=("localhost", "127.0.0.1"), server=True, authority="etcd-ca"),
        Leaf("kubelet", f"system:node:{node_name}", hosts=(node_name, str(node_address)), server=True, client=False),
        Leaf("admin", "kubernetes-admin", ("system:masters",)),
        Leaf("kube-controller-manager", "system:kube-controller-manager"),
        Leaf("kube-scheduler", "system:kube-scheduler"),
        Leaf("kube-proxy", "system:kube-proxy"),
        Leaf("node", f"system:node:{node_name}", ("system:nodes",)),
    )


def ensure(folder: Path, wanted: Sequence[Leaf]) -> None:
    """Make what ``folder`` lacks of the CAs, the service-account keys (``sa.key``, ``sa.pub``) and ``wanted``."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in AUTHORITIES:
        if not (folder / f"{name}.crt").is_file():
            authority = new_authority(name)
            _write(folder, name, authority.certificate, authority.key)
    if not (folder / "sa.pub").is_file():
        key = ec.generate_private_key(ec.SECP256R1())
        _write_private(folder / "sa.key", _pem(key))
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / "sa.pub").write_bytes(public)
    for leaf in wanted:
        if not (folder / f"{leaf.name}.crt").is_file():
            certificate, leaf_key = issue(read_authority(folder, leaf.authority), leaf)
            _write(folder, leaf.name, certificate, leaf_key)


def new_authority(common_name: str) -> Authority:
    """A self-signed CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"lakeloop {common_name}")])
    builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(ca=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Authority, leaf: Leaf) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for ``leaf``, with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in leaf.organizations]
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name))
    uses = [ExtendedKeyUsageOID.SERVER_AUTH] * leaf.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * leaf.client
    builder = (
        _builder(x509.Name(attributes), authority.certificate.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if leaf.hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in leaf.hosts]), critical=False)
    return builder.sign(authority.key, hashes.SHA256()), key


def read_authority(folder: Path, name: str) -> Authority:
    """The CA that ``ensure`` made in ``folder``."""
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{folder / name}.key is no EC key")
    return Authority(x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes()), key)


def pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    """Certificate and key as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The certificate last: it is what tells that the pair is whole.
    certificate_pem, key_pem = pem(certificate, key)
    _write_private(folder / f"{name}.key", key_pem)
    scratch = folder / f".{name}.crt"
    scratch.write_bytes(certificate_pem)
    scratch.rename(folder / f"{name}.crt")


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        handle.write(content)
