"""Puts an image of buildah's storage into a node's containerd, sending only the layers that the node does not have.

The image goes uncompressed into an OCI layout in the cache folder, where an unchanged layer is not written again; then
an archive with the blobs that containerd lacks is piped into ``ctr images import``. So a change of our code alone
moves a few hundred kilobytes. Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from localcluster.errors import LocalClusterError
from localcluster.gobuild import cache_root
from localcluster.layout import CONTAINERD_SOCKET
from localcluster.node import loader
from localcluster.node.commands import enter

_NAME = "org.opencontainers.image.ref.name"
_CTR = ("ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io")


def layout_folder() -> Path:
    """``$XDG_CACHE_HOME/lakeloop/oci``: may be deleted at any time."""
    return cache_root() / "oci"


def described(index: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """The index entry of a reference. Raises KeyError."""
    for entry in index["manifests"]:
        if entry.get("annotations", {}).get(_NAME) == reference:
            return dict(entry)
    raise KeyError(reference)


def blobs(entry: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """The digests that an image is made of: manifest, config, layers."""
    return [entry["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def to_send(digests: Iterable[str], present: Iterable[str], always: int = 2) -> list[str]:
    """The blobs that the node lacks, each once; the first ``always`` (manifest and config) in any case."""
    there = set(present)
    return list(dict.fromkeys(digest for i, digest in enumerate(digests) if i < always or digest not in there))


def load(pid: int, reference: str) -> int | None:
    """Puts an image into the node with first process ``pid``; the bytes sent, None when the node has it already.

    Raises LocalClusterError with the words of buildah or ctr.
    """
    image_id = _run(["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", reference]).strip()
    if loader.is_loaded({reference: f"sha256:{image_id}"}, loader.present_images(pid)):
        return None
    layout = layout_folder()
    layout.parent.mkdir(parents=True, exist_ok=True)
    # Uncompressed: compressing takes minutes, and nothing leaves this machine.
    _run(["buildah", "push", "--quiet", "--disable-compression", reference, f"oci:{layout}:{reference}"])
    entry = described(json.loads((layout / "index.json").read_text()), reference)
    manifest = json.loads(_blob(layout, entry["digest"]).read_text())
    present = _run(enter(pid, [*_CTR, "content", "ls", "--quiet"])).split()
    wanted = to_send(blobs(entry, manifest), present)
    command = enter(pid, [*_CTR, "images", "import", "-"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if process.stdin is None or process.stderr is None:
        raise LocalClusterError(f"{' '.join(command)}: no pipe")
    try:
        with process.stdin as pipe:
            _write(
                pipe, layout, entry | {"annotations": {_NAME: reference, "io.containerd.image.name": reference}}, wanted
            )
    except BrokenPipeError:
        pass  # ctr says why, below
    words = process.stderr.read().decode(errors="replace").strip()
    if process.wait() != 0:
        raise LocalClusterError(f"{reference}: ctr images import failed: {words}")
    return sum(_blob(layout, digest).stat().st_size for digest in wanted)


def prune(layout: Path, keep: Iterable[str]) -> None:
    """Takes every image but those with the references ``keep`` out of the layout, and the blobs that are no one's."""
    index_file = layout / "index.json"
    if not index_file.is_file():
        return
    index = json.loads(index_file.read_text())
    names = set(keep)
    index["manifests"] = [entry for entry in index["manifests"] if entry.get("annotations", {}).get(_NAME) in names]
    used: set[str] = set()
    for entry in index["manifests"]:
        used.update(blobs(entry, json.loads(_blob(layout, entry["digest"]).read_text())))
    index_file.write_text(json.dumps(index))
    for path in (layout / "blobs" / "sha256").iterdir():
        if f"sha256:{path.name}" not in used:
            path.unlink()


def _write(pipe: IO[bytes], layout: Path, entry: Mapping[str, Any], digests: Iterable[str]) -> None:
    with tarfile.open(fileobj=pipe, mode="w|") as archive:
        for digest in digests:
            archive.add(_blob(layout, digest), f"blobs/{digest.replace(':', '/')}")
        for name, content in (
            ("index.json", {"schemaVersion": 2, "manifests": [entry]}),
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ):
            raw = json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
