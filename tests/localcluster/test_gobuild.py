from __future__ import annotations

from pathlib import Path

import pytest

from localcluster import gobuild
from localcluster.errors import LocalClusterError

SOURCES = [("go.mod", b"module x"), ("go.sum", b"h1:")]
KEY = gobuild.cache_key(SOURCES, "go1.26.0", "-s -w")


@pytest.mark.parametrize(
    ("sources", "go", "flags"),
    [
        pytest.param([("go.mod", b"module y"), SOURCES[1]], "go1.26.0", "-s -w", id="module changed"),
        pytest.param([SOURCES[0], ("go.sum", b"h2:")], "go1.26.0", "-s -w", id="sums changed"),
        pytest.param([*SOURCES, ("coredns/main.go", b"")], "go1.26.0", "-s -w", id="a source more"),
        pytest.param(SOURCES, "go1.26.1", "-s -w", id="another toolchain"),
        pytest.param(SOURCES, "go1.26.0", "-s", id="other flags"),
    ],
)
def test_whatever_a_program_is_made_of_changes_its_folder(
    sources: list[tuple[str, bytes]], go: str, flags: str
) -> None:
    assert gobuild.cache_key(sources, go, flags) != KEY


def test_the_order_of_the_sources_does_not_matter() -> None:
    assert gobuild.cache_key(reversed(SOURCES), "go1.26.0", "-s -w") == KEY


def test_the_version_is_stamped_for_the_server_and_for_kubectl() -> None:
    flags = gobuild.ldflags("v1.34.4")
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        for value in ("gitVersion=v1.34.4", "gitMajor=1", "gitMinor=34"):
            assert f"-X {package}.{value}" in flags


def test_helm_knows_itself_and_the_clusters_version() -> None:
    flags = gobuild.ldflags("v1.34.4")
    assert f"-X helm.sh/helm/v4/internal/version.version={gobuild.HELM_VERSION} " in flags
    assert "-X helm.sh/helm/v4/pkg/chart/common.k8sVersionMajor=1 " in flags
    assert "-X helm.sh/helm/v4/pkg/chart/common.k8sVersionMinor=34 " in flags


def test_the_version_is_the_one_that_go_mod_locks() -> None:
    module = (gobuild.module_dir() / "go.mod").read_text()
    assert f"k8s.io/kubernetes {gobuild.KUBERNETES_VERSION}" in module
    assert f"helm.sh/helm/v4 {gobuild.HELM_VERSION}" in module


def test_every_program_is_a_tool_of_the_module_or_in_it() -> None:
    module = (gobuild.module_dir() / "go.mod").read_text()
    for program in gobuild.PROGRAMS:
        assert f"\t{program.package}\n" in module or (gobuild.module_dir() / program.package).is_dir(), program


def test_build_command() -> None:
    command = gobuild.build_command("/usr/bin/go", gobuild.PROGRAMS[0], Path("/tmp/etcd"))
    assert command[:3] == ["/usr/bin/go", "build", "-trimpath"]
    assert command[-3:] == ["-o", "/tmp/etcd", "go.etcd.io/etcd/server/v3"]


@pytest.mark.parametrize(
    ("done", "current", "todo", "expected"),
    [
        pytest.param([], (40, 0.0), [130, 20], 190.0, id="nothing measured: the weights"),
        pytest.param([(40, 80.0)], (130, 0.0), [20], 300.0, id="a machine half as fast"),
        pytest.param([(40, 40.0)], (130, 100.0), [20], 50.0, id="within a build"),
        pytest.param([(40, 40.0)], (100, 500.0), [], 10.0, id="later than thought: never below a tenth"),
        pytest.param([(40, 4.0)], None, [], 0.0, id="at the end"),
    ],
)
def test_remaining_seconds(
    done: list[tuple[int, float]], current: tuple[int, float] | None, todo: list[int], expected: float
) -> None:
    assert gobuild.remaining_seconds(done, current, todo) == pytest.approx(expected)


def test_an_unknown_program_is_named_with_those_there_are() -> None:
    with pytest.raises(LocalClusterError, match=r"no such program: kubeadm; there are etcd, kube-apiserver"):
        gobuild.ensure_binaries(["etcd", "kubeadm"])
