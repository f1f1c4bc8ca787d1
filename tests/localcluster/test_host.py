from __future__ import annotations

import re
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from localcluster import debian
from localcluster.node import host, preflight

ALL_WELL: dict[str, Any] = {"system": "Linux", "uid": 0, "cgroup_mounted": True, "controllers": [], "namespaces": []}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="all there"),
        pytest.param({"uid": 1000}, ["a node needs root .* run it with sudo"], id="no root"),
        pytest.param({"cgroup_mounted": False}, ["no cgroups at /sys/fs/cgroup"], id="no cgroups"),
        pytest.param({"controllers": ["pids"]}, ["controllers missing at /sys/fs/cgroup: pids"], id="a controller"),
        pytest.param({"namespaces": ["uts"]}, ["kernel lacks namespaces: uts"], id="a namespace"),
        pytest.param({"uid": 1000, "cgroup_mounted": False}, ["root", "no cgroups"], id="several at once"),
        pytest.param({"system": "Darwin", "uid": 501}, ["needs Linux, this is Darwin: use kind"], id="not Linux"),
    ],
)
def test_each_lack_is_named_with_what_to_do(changes: dict[str, Any], expected: list[str]) -> None:
    found = preflight.problems(**{**ALL_WELL, **changes})
    assert len(found) == len(expected)
    for words, pattern in zip(found, expected, strict=True):
        assert re.search(pattern, words), words


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        pytest.param({"/a", "/b1"}, [], id="all, one by its first path"),
        pytest.param({"/a", "/b2"}, [], id="all, one by its other path"),
        pytest.param({"/b1"}, ["pa"], id="one missing"),
        pytest.param(set(), ["pa", "pb"], id="all missing"),
    ],
)
def test_missing_packages(there: set[str], expected: list[str]) -> None:
    assert debian.missing({"/a": "pa", "/b1|/b2": "pb"}, there.__contains__) == expected


def test_networks_of_the_host() -> None:
    addresses = [
        {"addr_info": [{"family": "inet", "local": "10.0.0.7", "prefixlen": 24}, {"family": "inet6", "local": "::1"}]},
        {"ifname": "down"},
    ]
    routes = [{"dst": "default"}, {"dst": "172.31.128.0/30"}, {"dst": "192.0.2.1"}]
    assert host.networks(addresses, routes) == [
        IPv4Network("10.0.0.0/24"),
        IPv4Network("172.31.128.0/30"),
        IPv4Network("192.0.2.1/32"),
    ]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [("000001ffffffffff", False), ("000001fffeffffff", True), ("0000000000000000", True)],
    ids=["full root", "root without it", "no capability"],
)
def test_lacks_sys_resource(capabilities: str, expected: bool) -> None:
    assert host.lacks_sys_resource(f"Name:\tx\nCapEff:\t{capabilities}\n") is expected


def test_cgroup_v1_has_a_hierarchy_a_controller_and_links_are_no_second_one(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "pids"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert [path.name for path in host.hierarchies(tmp_path)] == ["cpu,cpuacct", "memory", "pids"]
    assert host.missing_controllers(tmp_path) == ["cpuset"]


def test_cgroup_v2_is_one_hierarchy(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "user.slice").mkdir()
    assert host.hierarchies(tmp_path) == [tmp_path]
    assert host.missing_controllers(tmp_path) == ["cpuset"]
