from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.identity import Identity
from localcluster.layout import Layout, file_system, state_folder

MOUNTINFO = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:5 / /proc rw - proc proc rw
30 21 0:30 / /home rw - overlay overlay rw,lowerdir=/a
31 30 0:31 / /home/me/my\\040disk rw - btrfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/srv/x", "ext4", id="root file system"),
        pytest.param("/home/me", "overlay", id="below a mount"),
        pytest.param("/home", "overlay", id="the mount point itself"),
        pytest.param("/homework", "ext4", id="same beginning, another folder"),
        pytest.param("/home/me/my disk/x", "btrfs", id="mount point with a blank"),
    ],
)
def test_file_system_of_a_path(path: str, expected: str) -> None:
    assert file_system(Path(path), MOUNTINFO) == expected


@pytest.mark.parametrize(
    ("kind", "moves"),
    [("ext4", False), ("xfs", False), ("btrfs", False), ("overlay", True), ("9p", True), ("fuse.sshfs", True)],
)
def test_state_leaves_a_checkout_whose_file_system_takes_no_overlay(kind: str, moves: bool) -> None:
    record = Path("/x/.lakeloop/demo")
    assert (state_folder(record, "lakeloop-demo-1", kind) != record) is moves


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lakeloop", "/x/.lakeloop/kubeconfig"), ("other", "/x/.lakeloop/other/kubeconfig")],
)
def test_only_the_default_cluster_has_its_kubeconfig_at_the_top(name: str, expected: str) -> None:
    place = Layout(Identity(name, "0" * 8), Path("/x/.lakeloop"), Path("/x/.lakeloop") / name)
    assert str(place.kubeconfig) == expected
