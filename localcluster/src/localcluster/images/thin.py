"""Puts an image of buildah's storage into a node's containerd, sending only the layers that the node does not have.

buildah's storage gives each layer back as the very tar that the manifest names by its digest (``containers-storage
diff``). An archive with the manifest, the config and the layers that containerd lacks is piped into ``ctr images
import``: a change of our code alone moves a few hundred kilobytes.
Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from localcluster.errors import LocalClusterError
from localcluster.layout import CONTAINERD_SOCKET
from localcluster.node import loader
from localcluster.node.commands import enter

TOOL = "containers-storage"  # Debian's package has the same name
_PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CTR = ("ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io")


@dataclass(frozen=True)
class Layer:
    """A layer of a manifest: its digest (``sha256:…``) and its size in bytes, both of the plain tar."""

    digest: str
    size: int


@dataclass(frozen=True)
class StoredImage:
    """An image as buildah keeps it: the id (digest of its config), config and manifest byte by byte, and its layers."""

    image_id: str
    config: bytes
    manifest: bytes
    manifest_digest: str
    layers: Sequence[Layer]


def parse(inspected: Mapping[str, Any]) -> StoredImage | None:
    """The image of a ``buildah inspect``; None when its layers are no plain tars (a pulled one)."""
    manifest = json.loads(inspected["Manifest"])
    if any(layer["mediaType"] != _PLAIN_LAYER for layer in manifest["layers"]):
        return None
    return StoredImage(
        f"sha256:{inspected['FromImageID']}",
        inspected["Config"].encode(),
        inspected["Manifest"].encode(),
        inspected["FromImageDigest"],
        [Layer(layer["digest"], layer["size"]) for layer in manifest["layers"]],
    )


def to_send(layers: Iterable[Layer], present: Iterable[str]) -> list[Layer]:
    """The layers whose digests the node lacks, each once."""
    there = set(present)
    return list(dict.fromkeys(layer for layer in layers if layer.digest not in there))


def load(pid: int, reference: str, scratch: Path) -> int | None:
    """Puts an image into the node with first process ``pid``; the bytes sent, None when the node has it already.

    ``scratch``: a folder with room for the image, used where layers cannot be had one by one.
    Raises LocalClusterError with the words of buildah, containers-storage or ctr.
    """
    inspected = json.loads(_run(["buildah", "inspect", "--type", "image", reference]))
    image_id = f"sha256:{inspected['FromImageID']}"
    if loader.is_loaded({reference: image_id}, loader.present_images(pid)):
        return None
    image = parse(inspected)
    if image is None or shutil.which(TOOL) is None:
        loader.load_from_buildah(pid, reference, scratch)
        return sum(int(layer["size"]) for layer in json.loads(inspected["Manifest"])["layers"])
    layers = to_send(image.layers, _run(enter(pid, [*_CTR, "content", "ls", "--quiet"])).split())
    command = enter(pid, [*_CTR, "images", "import", "-"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if process.stdin is None or process.stderr is None:
        raise LocalClusterError(f"{' '.join(command)}: no pipe")
    # A broken pipe means that ctr has ended: why, it says below.
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        write_archive(pipe, reference, image, layers)
    words = process.stderr.read().decode(errors="replace").strip()
    if process.wait() != 0:
        raise LocalClusterError(f"{reference}: ctr images import failed: {words}")
    return len(image.config) + len(image.manifest) + sum(layer.size for layer in layers)


def index(reference: str, image: StoredImage) -> dict[str, Any]:
    """``index.json`` of an archive with one image, under the name by which containerd will know it."""
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest_digest,
        "size": len(image.manifest),
        "annotations": names,
    }
    return {"schemaVersion": 2, "manifests": [entry]}


def write_archive(pipe: IO[bytes], reference: str, image: StoredImage, layers: Iterable[Layer]) -> None:
    """Writes the OCI archive with these layers of an image, as a stream.

    Raises LocalClusterError when the storage has no such layer or ends in the midst of it.
    """
    known = {row.get("diff-digest"): row["id"] for row in json.loads(_run([TOOL, "layers", "--json"]))}
    small = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps(index(reference, image)).encode(),
        _path(image.manifest_digest): image.manifest,
        _path(image.image_id): image.config,
    }
    with tarfile.open(fileobj=pipe, mode="w|") as archive:
        for name, content in small.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for layer in layers:
            if layer.digest not in known:
                raise LocalClusterError(f"{reference}: buildah's storage lacks layer {layer.digest}")
            info = tarfile.TarInfo(_path(layer.digest))
            info.size = layer.size
            command = [TOOL, "diff", "--uncompressed", known[layer.digest]]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as source:
                try:
                    archive.addfile(info, source.stdout)
                except OSError as error:
                    if isinstance(error, BrokenPipeError):
                        raise
                    raise LocalClusterError(f"{' '.join(command)}: {error}") from error


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
