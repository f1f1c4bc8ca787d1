"""Frees what builds leave behind in buildah's storage: images of former states of the files, and layers of no image."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from localcluster.images.definitions import PREFIX

# What a build of the same day left is often the next one's cache, or another checkout's image.
KEEP_SECONDS = 12 * 3600


def superseded(images: Iterable[Mapping[str, Any]], current: Collection[str], now: float, age: float) -> list[str]:
    """Of ``buildah images --json``, what may go: ids of nameless images and names of ours that are not ``current``.

    ``now`` and ``age`` are in seconds (Unix time; how old an image must be to go).
    """
    found: list[str] = []
    for image in images:
        if now - float(image["created"]) < age:
            continue
        names = [name for name in image.get("names") or [] if "<none>" not in name]
        if not names:
            found.append(str(image["id"]))
        found += [
            name
            for name in names
            if name.startswith(f"{PREFIX}/") and not name.endswith(":dev") and name not in current
        ]
    return found


def clean(current: Collection[str], age: float = KEEP_SECONDS) -> int:
    """Removes what may go, as far as nothing stands on it; returns how many images and names went."""
    listed = subprocess.run(["buildah", "images", "--json"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return 0
    gone = 0
    for name in superseded(json.loads(listed.stdout or "[]"), current, time.time(), age):
        # One at a time: buildah refuses what another image or a build under way stands on, and that is as it should be.
        gone += subprocess.run(["buildah", "rmi", name], capture_output=True, check=False).returncode == 0
    return gone
