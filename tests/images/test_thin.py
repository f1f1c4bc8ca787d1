"""Which layers are sent to a node, and the archive that carries them."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from localcluster.errors import LocalClusterError
from localcluster.images import thin

BASE, CODE = thin.Layer("sha256:base", 4), thin.Layer("sha256:code", 3)
TYPE = "application/vnd.oci.image.layer.v1.tar"


def inspected(media_type: str = TYPE) -> dict[str, Any]:
    """What ``buildah inspect`` says of an image with two layers."""
    manifest = json.dumps(
        {
            "config": {"digest": "sha256:config"},
            "layers": [{"mediaType": media_type, "digest": one.digest, "size": one.size} for one in (BASE, CODE)],
        }
    )
    digest = "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()
    return {"FromImageID": "config", "FromImageDigest": digest, "Manifest": manifest, "Config": "{}"}


@pytest.mark.parametrize(
    ("layers", "present", "expected"),
    [
        pytest.param([BASE, CODE], [], [BASE, CODE], id="a node that has nothing"),
        pytest.param([BASE, CODE], ["sha256:base", "sha256:other"], [CODE], id="only our code changed"),
        pytest.param([BASE, CODE], ["sha256:code", "sha256:base"], [], id="another name of the same layers"),
        pytest.param([BASE, CODE, BASE], [], [BASE, CODE], id="a layer that comes twice"),
    ],
)
def test_to_send(layers: list[thin.Layer], present: list[str], expected: list[thin.Layer]) -> None:
    assert thin.to_send(layers, present) == expected


def test_parse() -> None:
    image = thin.parse(inspected())
    assert image is not None
    assert image.image_id == "sha256:config"
    assert image.layers == [BASE, CODE]
    assert image.manifest_digest == "sha256:" + hashlib.sha256(image.manifest).hexdigest()


def test_compressed_layers_go_another_way() -> None:
    assert thin.parse(inspected(TYPE + "+gzip")) is None


def storage(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Stands in for containers-storage: it knows one layer, ``sha256:code``, with this content."""
    program = folder / thin.TOOL
    layers = json.dumps([{"id": "1", "diff-digest": "sha256:code"}, {"id": "0"}])
    program.write_text(f"#!/bin/sh\n[ $1 = layers ] && echo '{layers}' || printf '{content}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_archive_is_an_oci_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage(tmp_path, monkeypatch, "abc")
    image = thin.parse(inspected())
    assert image is not None
    pipe = io.BytesIO()
    thin.write_archive(pipe, "localhost/lakeloop/x:1", image, [CODE])
    with tarfile.open(fileobj=io.BytesIO(pipe.getvalue())) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert set(found) == {
        *("oci-layout", "index.json", "blobs/sha256/config", "blobs/sha256/code"),
        "blobs/" + image.manifest_digest.replace(":", "/"),
    }
    assert found["blobs/sha256/code"] == b"abc"
    entry = json.loads(found["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/lakeloop/x:1"
    assert entry["size"] == len(image.manifest)


@pytest.mark.parametrize(
    ("layer", "content", "message"),
    [
        pytest.param(BASE, "abcd", "storage lacks layer sha256:base", id="unknown"),
        pytest.param(CODE, "ab", "unexpected end of data", id="cut short"),
    ],
)
def test_a_layer_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: thin.Layer, content: str, message: str
) -> None:
    storage(tmp_path, monkeypatch, content)
    image = thin.parse(inspected())
    assert image is not None
    with pytest.raises(LocalClusterError, match=message):
        thin.write_archive(io.BytesIO(), "x:1", image, [layer])
