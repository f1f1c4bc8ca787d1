"""Kubeconfig files."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml


def render(name: str, server: str, ca: bytes, certificate: bytes, key: bytes) -> dict[str, Any]:
    """A kubeconfig with one cluster, one user and one context, all called ``name``; PEM in, base64 inside."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _b64(ca)}}],
        "users": [
            {"name": name, "user": {"client-certificate-data": _b64(certificate), "client-key-data": _b64(key)}},
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def write(path: Path, config: dict[str, Any]) -> None:
    """Write a kubeconfig that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        yaml.safe_dump(config, handle, sort_keys=False)
    scratch.rename(path)


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()
