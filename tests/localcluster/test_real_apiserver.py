from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.apiserver import ApiServer

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def kubectl(api: ApiServer, *args: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(api.kubectl), f"--kubeconfig={kubeconfig or api.kubeconfig}", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_it_is_up_in_under_ten_seconds_beside_another_one(api: ApiServer) -> None:
    started = time.monotonic()
    with ApiServer() as second:
        took = time.monotonic() - started
        assert second.url != api.url
        assert kubectl(second, "create", "namespace", "only-there").returncode == 0
        assert kubectl(api, "get", "namespace", "only-there").returncode != 0
        folder = second.folder
    # A machine that does nothing else takes 3 s; one that builds images beside it should not fail this.
    assert took < 10 or os.getloadavg()[0] > 2 * (os.cpu_count() or 1), f"{took:.1f} s"
    assert not folder.exists()


def test_pod_security_is_enforced(api: ApiServer) -> None:
    kubectl(api, "create", "namespace", "strict")
    kubectl(api, "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    refused = kubectl(api, "run", "root", "--image=x", "--namespace=strict")
    assert 'violates PodSecurity "restricted:latest"' in refused.stderr
    assert kubectl(api, "run", "root", "--image=x", "--namespace=default").returncode == 0


def test_rbac_keeps_others_out(api: ApiServer) -> None:
    bob = api.kubeconfig_for("bob", ["readers"])
    assert 'User "bob" cannot list resource "pods"' in kubectl(api, "get", "pods", kubeconfig=bob).stderr
    kubectl(api, "create", "clusterrole", "readers", "--verb=list", "--resource=pods")
    kubectl(api, "create", "clusterrolebinding", "readers", "--clusterrole=readers", "--group=readers")
    deadline = time.monotonic() + 10
    while (answer := kubectl(api, "get", "pods", kubeconfig=bob)).returncode != 0:
        assert time.monotonic() < deadline, answer.stderr
    assert bob.stat().st_mode & 0o777 == 0o600


def test_an_outage_of_etcd_loses_nothing(api: ApiServer) -> None:
    kubectl(api, "create", "configmap", "kept", "--from-literal=a=1")
    api.stop_etcd()
    assert not api.ready()
    api.start_etcd()
    deadline = time.monotonic() + 30
    while not api.ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert kubectl(api, "get", "configmap", "kept", "--output=jsonpath={.data.a}").stdout == "1"


def test_a_folder_is_found_again_and_its_data_survives_a_crash(tmp_path: Path) -> None:
    first = ApiServer(tmp_path / "api").start()
    try:
        assert kubectl(first, "create", "configmap", "kept").returncode == 0
        assert ApiServer(tmp_path / "api").start().url == first.url
        first._stop_one("etcd")
        first._stop_one("kube-apiserver")
        again = ApiServer(tmp_path / "api").start()
        assert kubectl(again, "get", "configmap", "kept").returncode == 0
    finally:
        ApiServer(tmp_path / "api").stop()
    assert not (tmp_path / "api").exists()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in command for command in running)
