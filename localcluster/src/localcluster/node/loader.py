"""Puts images into a node's containerd (namespace ``k8s.io``), unless they are there already."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from localcluster.errors import LocalClusterError
from localcluster.layout import CONTAINERD_SOCKET
from localcluster.node.commands import enter
from localcluster.ociimage import Image, archive_ids

_CTR = ("ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io")


def parse_image_list(text: str) -> dict[str, str]:
    """Reference → image id (digest of its config) of ``ctr images list``.

    containerd's CRI part names every image a second time by its id; both names share the manifest's digest.
    """
    rows = [line.split() for line in text.splitlines()[1:]]
    digests = {row[0]: row[2] for row in rows if len(row) > 2}
    ids = {digest: reference for reference, digest in digests.items() if reference.startswith("sha256:")}
    return {reference: ids[digest] for reference, digest in digests.items() if ":" in reference and digest in ids}


def is_loaded(wanted: Mapping[str, str], present: Mapping[str, str]) -> bool:
    """Whether every wanted reference is present with that very id."""
    return bool(wanted) and all(present.get(reference) == image_id for reference, image_id in wanted.items())


def present_images(pid: int) -> dict[str, str]:
    """Reference → id of the images on the node whose first process is ``pid``."""
    return parse_image_list(_ctr(pid, "images", "list"))


def load_images(pid: int, images: list[Image]) -> list[str]:
    """Import built images that the node lacks; returns the references that were imported."""
    present = present_images(pid)
    loaded = []
    for image in images:
        if not is_loaded({image.reference: image.config_digest}, present):
            with tempfile.TemporaryFile() as archive:
                archive.write(image.archive)
                archive.seek(0)
                _ctr(pid, "images", "import", "-", stdin=archive)
            loaded.append(image.reference)
    return loaded


def load_archive(pid: int, path: Path) -> list[str]:
    """Import an OCI or Docker archive; returns its references, none when the node has them all already.

    Raises LocalClusterError when the file is missing or no such archive.
    """
    try:
        wanted = archive_ids(path)
    except (OSError, ValueError, KeyError) as error:
        raise LocalClusterError(f"{path}: {error}") from error
    if is_loaded(wanted, present_images(pid)):
        return []
    with path.open("rb") as archive:
        _ctr(pid, "images", "import", "-", stdin=archive)
    return sorted(wanted)


def load_from_buildah(pid: int, reference: str, scratch: Path) -> bool:
    """Import an image of buildah's storage; False when the node has it already. ``scratch``: a folder with room for it.

    Raises LocalClusterError when buildah does not know the image.
    """
    if shutil.which("buildah") is None:
        raise LocalClusterError(f"{reference} is no file, and buildah is not installed: apt-get install buildah")
    image_id = _run(["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", reference]).strip()
    present = present_images(pid)
    if is_loaded({reference: f"sha256:{image_id}"}, present):
        return False
    for other, present_id in present.items():
        if present_id == f"sha256:{image_id}" and not other.startswith("sha256:"):
            _ctr(pid, "images", "tag", "--force", other, reference)
            return True
    with tempfile.TemporaryDirectory(prefix="image-", dir=scratch) as folder:
        archive = Path(folder) / "image.tar"
        # Uncompressed: compressing takes minutes, and the archive is gone in a moment.
        _run(["buildah", "push", "--quiet", "--disable-compression", reference, f"oci-archive:{archive}:{reference}"])
        with archive.open("rb") as handle:
            _ctr(pid, "images", "import", "-", stdin=handle)
    return True


def tag(pid: int, reference: str, other: str) -> None:
    """Give an image of the node a second name, taking that name from whichever image had it."""
    _ctr(pid, "images", "tag", "--force", reference, other)


def _ctr(pid: int, *args: str, stdin: IO[bytes] | None = None) -> str:
    return _run(enter(pid, [*_CTR, *args]), stdin=stdin)


def _run(command: list[str], stdin: IO[bytes] | None = None) -> str:
    result = subprocess.run(command, stdin=stdin or subprocess.DEVNULL, capture_output=True, check=False)
    if result.returncode != 0:
        words = result.stderr.decode(errors="replace").strip() or f"exit code {result.returncode}"
        raise LocalClusterError(f"{' '.join(command)}: {words}")
    return result.stdout.decode()
