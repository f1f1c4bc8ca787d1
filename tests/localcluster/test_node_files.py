from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import manifests
from localcluster.identity import Identity, Link
from localcluster.node.commands import node_commands
from localcluster.node.spec import NodeSpec

LINK = Link(IPv4Network("172.31.200.4/30"))
IMAGES = {name: f"localhost/lakeloop/{name}:1" for name in ("coredns", "local-path-provisioner", "busybox")}


def spec(**changes: Any) -> NodeSpec:
    values: dict[str, Any] = {
        "identity": Identity("demo", "0a1b2c3d"),
        "link": LINK,
        "state": Path("/home/me/lakeloop/.lakeloop/demo"),
        "binaries": Path("/home/me/.cache/lakeloop/bin/0123"),
        "pause": "localhost/lakeloop/pause:1",
        "snapshotter": "overlayfs",
        "restrict_oom_score": True,
    }
    return NodeSpec(**{**values, **changes})


def documents() -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(manifests.render(IMAGES)) if document]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in documents() if document["kind"] == kind]


@pytest.mark.parametrize("path", sorted(spec().config_files()))
def test_configuration_files(path: str, golden: Callable[[str, str], None]) -> None:
    golden(Path(path).name, spec().config_files()[path])


def test_supervisor_spec(golden: Callable[[str, str], None]) -> None:
    golden("node.json", spec().supervisor())


def test_manifests(golden: Callable[[str, str], None]) -> None:
    golden("manifests.yaml", manifests.render(IMAGES))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pause": "localhost/lakeloop/pause:2"}, id="only in containerd's file"),
        pytest.param({"binaries": Path("/other")}, id="other programs"),
        pytest.param({"link": Link(IPv4Network("172.31.200.8/30"))}, id="another address"),
        pytest.param({"restrict_oom_score": False}, id="another capability"),
    ],
)
def test_every_change_is_a_change_of_the_supervisors_spec(changes: dict[str, Any]) -> None:
    assert spec(**changes).supervisor() != spec().supervisor()


def test_etcd_and_the_controllers_listen_on_loopback_only() -> None:
    commands = {command.name: command.argv for command in node_commands(node_name="n", node_address=LINK.node)}
    assert {a for a in commands["etcd"] if "listen-client" in a} == {"--listen-client-urls=https://127.0.0.1:2379"}
    assert "--client-cert-auth" in commands["etcd"]
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert "--bind-address=127.0.0.1" in commands[name]


def test_the_api_server_keeps_nodes_to_their_own_objects_and_reaches_them_by_address() -> None:
    commands = {command.name: command.argv for command in node_commands(node_name="n", node_address=LINK.node)}
    expected = {
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",
    }
    assert expected <= set(commands["kube-apiserver"])


def test_the_pod_network_masquerades_nothing() -> None:
    network = json.loads(spec().config_files()["config/cni/10-pods.conflist"])
    assert network["plugins"][0]["ipMasq"] is False


def test_only_the_nodes_own_namespace_is_privileged() -> None:
    privileged = [
        namespace["metadata"]["name"]
        for namespace in of_kind("Namespace")
        if namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") == "privileged"
    ]
    assert privileged == ["lakeloop-node"]


def test_there_is_one_default_storage_class_that_waits_for_its_pod() -> None:
    (found,) = of_kind("StorageClass")
    assert found["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    assert found["volumeBindingMode"] == "WaitForFirstConsumer"


def test_no_image_comes_from_a_registry_and_no_container_runs_as_root() -> None:
    for deployment in of_kind("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["image"] in IMAGES.values()
            assert container["imagePullPolicy"] == "Never"
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
