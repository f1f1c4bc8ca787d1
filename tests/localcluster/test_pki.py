from __future__ import annotations

import datetime as dt
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster import pki

LEAVES = pki.leaves("node-1", IPv4Address("172.31.200.6"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pki")
    pki.ensure(path, LEAVES)
    return path


def read(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.name)
def test_a_certificate_says_what_it_is_for_and_no_more(folder: Path, leaf: pki.Leaf) -> None:
    certificate = read(folder, leaf.name)
    certificate.verify_directly_issued_by(read(folder, leaf.authority))
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in uses, ExtendedKeyUsageOID.CLIENT_AUTH in uses) == (
        leaf.server,
        leaf.client,
    )
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    organizations = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    assert tuple(organizations) == leaf.organizations
    assert certificate.not_valid_after_utc > dt.datetime.now(dt.UTC) + dt.timedelta(days=365)


def test_the_api_server_and_the_kubelet_are_good_for_the_nodes_address(folder: Path) -> None:
    for name in ("apiserver", "kubelet"):
        names = read(folder, name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert IPv4Address("172.31.200.6") in names.get_values_for_type(x509.IPAddress)


def test_only_the_admin_is_a_cluster_admin() -> None:
    assert [leaf.name for leaf in LEAVES if "system:masters" in leaf.organizations] == ["admin"]


def test_no_certificate_of_the_cluster_opens_etcd() -> None:
    assert {leaf.name for leaf in LEAVES if leaf.authority == "etcd-ca"} == {"etcd", "apiserver-etcd-client"}


def test_keys_are_their_owners_only(folder: Path) -> None:
    keys = list(folder.glob("*.key"))
    assert len(keys) == len(LEAVES) + len(pki.AUTHORITIES) + 1
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


def test_a_second_call_makes_only_what_is_missing(tmp_path: Path) -> None:
    pki.ensure(tmp_path, LEAVES)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "kubelet.crt").unlink()
    pki.ensure(tmp_path, LEAVES)
    changed = {path.name for path in tmp_path.iterdir() if before[path.name] != path.read_bytes()}
    assert changed == {"kubelet.crt", "kubelet.key"}
