from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from localcluster.node.loader import is_loaded, parse_image_list
from localcluster.ociimage import Image, ImageFile, archive_ids, build

FILES = {"bin/tool": ImageFile(b"#!"), "bin/alias": ImageFile(link="tool")}
LISTING = """\
REF TYPE DIGEST SIZE PLATFORMS LABELS
localhost/a:1 application/vnd.oci.image.manifest.v1+json sha256:m1 1.0 MiB linux/amd64 io.cri-containerd.image=managed
sha256:c1 application/vnd.oci.image.manifest.v1+json sha256:m1 1.0 MiB linux/amd64 io.cri-containerd.image=managed
localhost/b:1 application/vnd.oci.image.manifest.v1+json sha256:m2 1.0 MiB linux/amd64 -
"""


def image(files: dict[str, ImageFile] | None = None) -> Image:
    return build("localhost/x/tool", files or FILES, ["/bin/tool"], machine="x86_64")


def test_the_same_files_give_the_same_image_and_others_another() -> None:
    assert image() == image()
    assert image({"bin/tool": ImageFile(b"#?")}).reference != image().reference


def test_an_image_says_what_it_is(tmp_path: Path) -> None:
    built = image()
    (tmp_path / "image.tar").write_bytes(built.archive)
    assert archive_ids(tmp_path / "image.tar") == {built.reference: built.config_digest}
    with tarfile.open(tmp_path / "image.tar") as archive:
        member = archive.extractfile("blobs/" + built.config_digest.replace(":", "/"))
        assert member is not None
        config = json.load(member)
    assert (config["architecture"], config["os"], config["config"]["User"]) == ("amd64", "linux", "65532:65532")


def test_a_docker_archive_is_understood(tmp_path: Path) -> None:
    entry = [{"Config": "ab12.json", "RepoTags": ["localhost/a:1", "localhost/a:2"], "Layers": []}]
    write_tar(tmp_path / "image.tar", {"manifest.json": json.dumps(entry).encode()})
    assert archive_ids(tmp_path / "image.tar") == {"localhost/a:1": "sha256:ab12", "localhost/a:2": "sha256:ab12"}


@pytest.mark.parametrize("members", [{}, {"README": b"hello"}], ids=["empty archive", "some other archive"])
def test_what_is_no_image_is_refused_with_what_was_missed(tmp_path: Path, members: dict[str, bytes]) -> None:
    write_tar(tmp_path / "x.tar", members)
    with pytest.raises(ValueError, match=r"neither an OCI archive .* nor a Docker archive"):
        archive_ids(tmp_path / "x.tar")


def test_image_list_gives_ids_where_the_runtime_knows_them() -> None:
    assert parse_image_list(LISTING) == {"localhost/a:1": "sha256:c1", "sha256:c1": "sha256:c1"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({"a:1": "sha256:1"}, True, id="there"),
        pytest.param({"a:1": "sha256:2"}, False, id="the same name with other content"),
        pytest.param({"a:1": "sha256:1", "b:1": "sha256:1"}, False, id="one of two"),
        pytest.param({}, False, id="an archive that names nothing"),
    ],
)
def test_is_loaded(wanted: dict[str, str], expected: bool) -> None:
    assert is_loaded(wanted, {"a:1": "sha256:1"}) is expected


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
