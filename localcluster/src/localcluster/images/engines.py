"""The two ways to build an image from a Dockerfile: command lines (pure), and what this machine has to lend a build."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Lent to the build, never part of the image: how this machine reaches package registries.
_MACHINE_FILES = ("/etc/pip.conf", "/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/auth.conf.d")
_APT_CONF = Path("/etc/apt/apt.conf.d")
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Lent:
    """Mounts (host path, path in the build, mode) and build arguments of one build."""

    mounts: Sequence[tuple[str, str, str]] = ()
    arguments: Mapping[str, str] | None = None


def from_machine(environment: Mapping[str, str]) -> Lent:
    """Package configuration and CA bundle of this machine; proxies as predefined arguments, which leave no trace."""
    bundle = environment.get("SSL_CERT_FILE") or _CA_BUNDLE
    mounts = [(path, path, "ro") for path in _MACHINE_FILES if Path(path).exists()]
    # File by file, since packages write into that folder; and only how to fetch, not what else this machine's apt does.
    mounts += [(str(path), str(path), "ro") for path in sorted(_APT_CONF.glob("*")) if "Acquire" in path.read_text()]
    if Path(bundle).is_file():
        mounts.append((bundle, _CA_BUNDLE, "ro"))
    return Lent(mounts, {name: environment[name] for name in _PROXY_VARIABLES if name in environment})


def with_go(lent: Lent, module: Path) -> Lent:
    """The machine's Go toolchain and its caches beside the rest: there is no Go image without a registry."""

    def go_env(*names: str) -> list[str]:
        done = subprocess.run(["go", "env", *names], capture_output=True, text=True, check=True, cwd=module)
        return done.stdout.splitlines()

    subprocess.run(["go", "mod", "download"], check=True, cwd=module, env={**os.environ, "GOFLAGS": ""})
    toolchain, modules, builds = go_env("GOROOT", "GOMODCACHE", "GOCACHE")
    mounts = [
        (toolchain, "/usr/local/go", "ro"),
        (modules, "/go/pkg/mod", "rw"),
        (builds, "/root/.cache/go-build", "rw"),
    ]
    return Lent([*lent.mounts, *mounts], {**(lent.arguments or {}), "GOPROXY": "off"})


def buildah_command(root: Path, dockerfile: str, context: str, reference: str, base: str, lent: Lent) -> list[str]:
    """``buildah bud`` without a daemon, a registry or user namespaces."""
    command = ["buildah", "bud", "--isolation", "chroot", "--layers", "--pull-never", "--format", "oci", "--quiet"]
    for source, target, mode in lent.mounts:
        command += ["--volume", f"{source}:{target}:{mode}"]
    arguments = {"BASE": base, "GO_BASE": base, **(lent.arguments or {})}
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    return [*command, "--tag", reference, "--file", str(root / dockerfile), str(root / context)]


def docker_command(root: Path, dockerfile: str, context: str, reference: str) -> list[str]:
    """``docker build`` of the same Dockerfile, on the bases that it names."""
    return ["docker", "build", "--quiet", "--tag", reference, "--file", str(root / dockerfile), str(root / context)]
