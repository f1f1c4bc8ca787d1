"""Small container images made without an image builder: a few files on nothing, as an OCI archive.

The archive is an OCI image layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) in a tar.
The same files give the same bytes, so an image's digest tells whether the node has it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class ImageFile:
    """A file of an image: its content, or with ``link`` a symbolic link."""

    content: bytes = b""
    link: str | None = None


@dataclass(frozen=True)
class Image:
    """A built image: its reference, the digest of its config (what runtimes call its id), and the archive's bytes."""

    reference: str
    config_digest: str
    archive: bytes


def architecture(machine: str) -> str:
    """Go's name of what ``uname -m`` says."""
    return _ARCHITECTURES.get(machine, machine)


def build(
    name: str, files: Mapping[str, ImageFile], entrypoint: Sequence[str], *, machine: str, user: str = "65532:65532"
) -> Image:
    """An image of ``files`` (path without leading slash → file, all executable and root's), tagged by its content.

    The reference is ``<name>:<first 12 hex digits of the config's digest>``.
    """
    layer = _layer(files)
    config = {
        "architecture": architecture(machine),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": user, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        "history": [{"created_by": "localcluster"}],
    }
    config_bytes = _json(config)
    config_digest = _digest(config_bytes)
    reference = f"{name}:{config_digest.removeprefix('sha256:')[:12]}"
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config_bytes),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    described = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    described["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    members = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config_bytes, manifest)}
    members["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    members["index.json"] = _json({"schemaVersion": 2, "manifests": [described]})
    return Image(reference, config_digest, _tar({path: ImageFile(content) for path, content in members.items()}, 0o644))


def archive_ids(path: Path) -> dict[str, str]:
    """Reference → config digest of the images in an OCI or Docker archive.

    Raises ValueError when the file is neither (OCI layout, or ``docker save``'s ``manifest.json``).
    """
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
        if "manifest.json" in names:
            return {
                reference: "sha256:" + Path(entry["Config"]).stem
                for entry in _member(archive, "manifest.json")
                for reference in entry.get("RepoTags") or []
            }
        if "index.json" not in names:
            raise ValueError("neither an OCI archive (no index.json) nor a Docker archive (no manifest.json)")
        found = {}
        for described in _member(archive, "index.json")["manifests"]:
            annotations = described.get("annotations", {})
            reference = annotations.get("io.containerd.image.name") or annotations.get(
                "org.opencontainers.image.ref.name"
            )
            manifest = _member(archive, _blob(described["digest"]))
            if reference and "config" in manifest:
                found[reference] = manifest["config"]["digest"]
        return found


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _member(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is no file")
    return json.load(member)


def _layer(files: Mapping[str, ImageFile]) -> bytes:
    return _tar(files, 0o755)


def _tar(files: Mapping[str, ImageFile], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders = sorted({str(parent) for path in files for parent in Path(path).parents} - {"."})
        for folder in folders:
            info = tarfile.TarInfo(folder)
            # World-writable with the sticky bit, as every /tmp.
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(info)
        for path, file in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.mode = mode
            if file.link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, file.link
                archive.addfile(info)
            else:
                info.size = len(file.content)
                archive.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}
