"""The two ways to build an image from a Dockerfile, as command lines: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Lent:
    """What this machine lends a build, none of which becomes part of the image.

    ``secrets``: id → file, mounted for single RUN steps. ``arguments``: predefined build arguments, which no history
    shows. ``contexts``: stage → folder that stands in for it, for what cannot be made in a stage here.
    """

    secrets: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, Path] = field(default_factory=dict)


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables that are set: Docker and buildah know these arguments and keep no trace of them."""
    return {name: environment[name] for name in _PROXY_VARIABLES if environment.get(name)}


def buildah_command(root: Path, dockerfile: str, context: str, reference: str, base: str, lent: Lent) -> list[str]:
    """``buildah bud`` without a daemon, a registry or user namespaces."""
    command = [
        "buildah",
        "bud",
        "--isolation",
        "chroot",
        "--layers",
        "--pull-never",
        "--force-rm",
        "--format",
        "oci",
        "--quiet",
    ]
    for stage, folder in lent.contexts.items():
        command += ["--build-context", f"{stage}={folder}"]
    return [*command, "--build-arg", f"BASE={base}", *_rest(root, dockerfile, context, reference, lent)]


def docker_command(root: Path, dockerfile: str, context: str, reference: str, lent: Lent) -> list[str]:
    """``docker build`` of the same Dockerfile, on the bases that it names and with its own first stages."""
    return ["docker", "build", "--quiet", *_rest(root, dockerfile, context, reference, lent)]


def _rest(root: Path, dockerfile: str, context: str, reference: str, lent: Lent) -> Sequence[str]:
    words: list[str] = []
    for name, value in lent.arguments.items():
        words += ["--build-arg", f"{name}={value}"]
    for identifier, path in lent.secrets.items():
        words += ["--secret", f"id={identifier},src={path}"]
    return [*words, "--tag", reference, "--file", str(root / dockerfile), str(root / context)]
