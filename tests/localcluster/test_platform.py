from __future__ import annotations

import json
from pathlib import Path

import pytest

from localcluster import clusters, debian, platform
from localcluster.layout import layout


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKELOOP_ROOT", str(tmp_path))
    return tmp_path


def commands(by_kind: bool) -> list[list[str]]:
    return [[" ".join(step.command[3:]) for step in lane] for lane in platform.lanes(by_kind)]


def test_images_are_built_beside_the_programs() -> None:
    assert commands(by_kind=False) == [["binaries", "up --no-kind"], ["images build --buildah"]]


def test_kind_needs_none_of_kubernetes_programs() -> None:
    assert commands(by_kind=True) == [["binaries kubectl helm", "up --kind"], ["images build --docker"]]


@pytest.mark.parametrize(
    ("docker", "node", "by_kind"),
    [
        pytest.param(True, False, True, id="an engine answers"),
        pytest.param(False, False, False, id="no engine"),
        pytest.param(True, True, False, id="an engine answers, but the cluster is a node already"),
    ],
)
def test_which_way(checkout: Path, monkeypatch: pytest.MonkeyPatch, docker: bool, node: bool, by_kind: bool) -> None:
    monkeypatch.setattr(clusters.kind, "docker_answers", lambda: docker)
    place = layout("lakeloop", checkout)
    if node:
        place.cluster_file.parent.mkdir(parents=True)
        place.cluster_file.write_text(json.dumps({"network": "172.31.128.0/30"}))
    assert clusters.chosen(place) is by_kind


def test_down_leaves_nothing_in_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters.kind, "docker_answers", lambda: False)
    (checkout / ".lakeloop/bin").mkdir(parents=True)
    (checkout / ".lakeloop/bin/helm").symlink_to("/nowhere")
    (checkout / ".lakeloop/images.json").write_text("{}")
    platform.down()
    platform.down()
    assert not (checkout / ".lakeloop").exists()


def test_missing_packages_are_told_apart() -> None:
    files = {"/a": "one", "/b|/c": "two", "/d": "three"}
    assert debian.missing(files, {"/c"}.__contains__) == ["one", "three"]


def test_apt_waits_for_another_apt() -> None:
    assert "DPkg::Lock::Timeout=300" in debian.install_command(["x"])
