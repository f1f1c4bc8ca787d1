"""Which blobs are sent to a node, and which the layout keeps."""

import hashlib
import json
from pathlib import Path

import pytest

from localcluster.images import thin

NAME = "org.opencontainers.image.ref.name"


def put(layout: Path, content: bytes) -> str:
    """Writes a blob; returns its digest."""
    digest = hashlib.sha256(content).hexdigest()
    folder = layout / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(content)
    return f"sha256:{digest}"


def image(layout: Path, reference: str, layers: list[bytes]) -> dict[str, object]:
    """Writes an image; returns its index entry."""
    config = put(layout, reference.encode())
    manifest = {"config": {"digest": config}, "layers": [{"digest": put(layout, layer)} for layer in layers]}
    return {"digest": put(layout, json.dumps(manifest).encode()), "annotations": {NAME: reference}}


@pytest.mark.parametrize(
    ("digests", "present", "expected"),
    [
        pytest.param(["m", "c", "base", "code"], [], ["m", "c", "base", "code"], id="a node that has nothing"),
        pytest.param(["m", "c", "base", "code"], ["base"], ["m", "c", "code"], id="only our code changed"),
        pytest.param(["m", "c", "base"], ["m", "c", "base"], ["m", "c"], id="manifest and config always"),
        pytest.param(["m", "c", "e", "x", "e"], [], ["m", "c", "e", "x"], id="a layer that comes twice"),
    ],
)
def test_to_send(digests: list[str], present: list[str], expected: list[str]) -> None:
    assert thin.to_send(digests, present) == expected


def test_prune_keeps_shared_layers(tmp_path: Path) -> None:
    old = image(tmp_path, "x:old", [b"base", b"old code"])
    new = image(tmp_path, "x:new", [b"base", b"new code"])
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [old, new]}))
    thin.prune(tmp_path, ["x:new"])
    left = {path.read_bytes() for path in (tmp_path / "blobs/sha256").iterdir()}
    assert {b"base", b"new code", b"x:new"} <= left
    assert len(left) == 4
    index = json.loads((tmp_path / "index.json").read_text())
    assert thin.described(index, "x:new")["digest"] == new["digest"]
    with pytest.raises(KeyError):
        thin.described(index, "x:old")


def test_prune_of_nothing(tmp_path: Path) -> None:
    thin.prune(tmp_path, ["x:new"])
    assert list(tmp_path.iterdir()) == []
