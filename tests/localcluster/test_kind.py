from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import kind
from localcluster.clusters import use_kind
from localcluster.identity import Identity
from localcluster.layout import Layout, checkout

CONFIG = kind.config_file(checkout())


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    return Layout(Identity("lakeloop", "0" * 8), tmp_path, tmp_path / "lakeloop")


class Kind:
    """Stands for the kind program: records commands, knows one cluster or none, writes the kubeconfig it is told to."""

    def __init__(self, clusters: str = "") -> None:
        self.clusters = clusters
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str]) -> str:
        self.commands.append(command)
        for argument in command:
            if argument.startswith("--kubeconfig="):
                Path(argument.partition("=")[2]).touch(mode=0o644)
        return self.clusters


def test_the_config_is_a_kind_cluster_of_one_node() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert [node["role"] for node in config["nodes"]] == ["control-plane"]


def test_every_node_port_that_can_be_given_is_reachable_from_loopback() -> None:
    (node,) = yaml.safe_load(CONFIG.read_text())["nodes"]
    (patch,) = (yaml.safe_load(text) for text in node["kubeadmConfigPatches"])
    first, last = map(int, patch["apiServer"]["extraArgs"]["service-node-port-range"].split("-"))
    expected: list[dict[str, Any]] = [
        {"containerPort": port, "hostPort": port, "listenAddress": "127.0.0.1"} for port in range(first, last + 1)
    ]
    assert node["extraPortMappings"] == expected


def test_up_creates_a_cluster_and_keeps_its_kubeconfig_private(place: Layout) -> None:
    runner = Kind()
    kind.up(place, runner)
    assert runner.commands == [
        ["kind", "get", "clusters"],
        [
            *("kind", "create", "cluster", "--name=lakeloop", f"--config={CONFIG}"),
            *(f"--kubeconfig={place.kubeconfig}", "--wait=180s"),
        ],
    ]
    assert place.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_up_a_second_time_only_writes_the_kubeconfig(place: Layout) -> None:
    runner = Kind("other\nlakeloop\n")
    kind.up(place, runner)
    assert runner.commands[1:] == [
        ["kind", "export", "kubeconfig", "--name=lakeloop", f"--kubeconfig={place.kubeconfig}"]
    ]


def test_down_deletes_the_cluster_and_the_kubeconfig(place: Layout) -> None:
    runner = Kind("lakeloop\n")
    kind.down(place, runner)
    assert runner.commands == [["kind", "delete", "cluster", "--name=lakeloop", f"--kubeconfig={place.kubeconfig}"]]
    assert not place.kubeconfig.exists()


@pytest.mark.parametrize(
    ("make", "how"),
    [
        pytest.param(lambda folder: "localhost/x:1", "docker-image", id="a reference"),
        pytest.param(lambda folder: str(folder / "x.tar"), "image-archive", id="a file"),
    ],
)
def test_load_image(tmp_path: Path, make: Callable[[Path], str], how: str) -> None:
    (tmp_path / "x.tar").touch()
    image, runner = make(tmp_path), Kind()
    kind.load_image("lakeloop", image, runner)
    assert runner.commands == [["kind", "load", how, image, "--name=lakeloop"]]


@pytest.mark.parametrize(
    ("asked", "node_exists", "docker", "expected"),
    [
        pytest.param(None, False, True, True, id="Docker answers"),
        pytest.param(None, False, False, False, id="no Docker"),
        pytest.param(None, True, True, False, id="a node of that name is there already"),
        pytest.param(False, False, True, False, id="--no-kind"),
        pytest.param(True, False, False, True, id="--kind"),
    ],
)
def test_which_way_up_goes(asked: bool | None, node_exists: bool, docker: bool, expected: bool) -> None:
    assert use_kind(asked, node_exists=node_exists, docker=docker) is expected
