"""Both charts' releases, by Helm through pyhelm3."""

import logging
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyhelm3
import pyhelm3.command
import pyhelm3.errors
import semver

from lakeloop.cli.errors import CliError

# pyhelm3 reports each failed command itself; the error that follows says more.
logging.getLogger("pyhelm3").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Release:
    """A chart's name and folder, and where its release goes; the release is named like the chart."""

    name: str
    chart: Path
    namespace: str


@dataclass(frozen=True)
class Installed:
    """A release as Helm has it."""

    name: str
    namespace: str
    revision: int
    status: str
    updated: datetime


def parse_version(text: str) -> semver.Version:
    """A version of Helm's; one that was built without a stamp calls itself `v4.0`."""
    return semver.Version.parse(text.strip().removeprefix("v"), optional_minor_and_patch=True)


class Command(pyhelm3.command.Command):  # type: ignore[misc]
    """pyhelm3's command, but a cancelled one ends Helm itself, and not only the shell that started it.

    Helm then marks the release as failed, and the next attempt goes on from there; otherwise it would stay pending.
    """

    def __init__(self, *, executable: str, **options: Any) -> None:
        super().__init__(executable="exec", **options)
        self._helm = executable

    async def run(self, command: list[str], input: bytes | None = None) -> bytes:
        answer: bytes = await super().run([self._helm, *command], input)
        return answer

    def client_version(self) -> semver.Version:
        command = [self._helm, "version", "--template", "{{ .Version }}"]
        return parse_version(subprocess.run(command, capture_output=True, check=True, text=True).stdout)  # noqa: S603


def find_helm(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The Helm to run: as given, else LAKELOOP_HELM, else on PATH. Raises CliError when there is none."""
    wanted = given or environment.get("LAKELOOP_HELM") or "helm"
    found = shutil.which(wanted, path=environment.get("PATH"))
    if not found:
        raise CliError(
            f"there is no Helm at {wanted!r}: install Helm 4, or say where it is with --helm or LAKELOOP_HELM"
        )
    return found


def last_line(error: pyhelm3.errors.Error) -> str:
    """What Helm said last: without the warnings before."""
    lines = [line for line in error.stderr.decode(errors="replace").splitlines() if line.strip()]
    from_error = [i for i, line in enumerate(lines) if line.startswith("Error:")]
    return "\n".join(lines[from_error[0] :] if from_error else lines[-3:]) or f"exit code {error.returncode}"


class Helm:
    """Helm on one cluster. Methods raise CliError with Helm's own words."""

    def __init__(self, executable: str, kubeconfig: Path | None, context: str | None = None) -> None:
        options: dict[str, Any] = {"executable": executable, "kubeconfig": kubeconfig, "kubecontext": context}
        self._client = pyhelm3.Client(Command(**options), executable=executable)
        if self._client.version < semver.Version(4):
            raise CliError(
                f"{executable} is Helm {self._client.version}: Helm 4 is needed, which waits for what resources say"
                " of themselves"
            )

    async def installed(self, release: Release) -> Installed | None:
        """The release's newest revision, or None."""
        try:
            revision = await self._client.get_current_revision(release.name, namespace=release.namespace)
        except pyhelm3.errors.ReleaseNotFoundError:
            return None
        except pyhelm3.errors.Error as error:
            raise CliError(f"helm status {release.name}: {last_line(error)}") from error
        return Installed(
            release.name, release.namespace, revision.revision, revision.status.value, revision.updated.astimezone(UTC)
        )

    async def free(self, release: Release, timeout: timedelta, now: datetime) -> None:
        """Makes sure that no half-finished operation holds the release.

        One that was begun longer than `timeout` ago has died, and is undone; a younger one is somebody's: CliError.
        """
        found = await self.installed(release)
        if found is None or not (found.status.startswith("pending-") or found.status == "uninstalling"):
            return
        if now - found.updated < timeout:
            since = (now - found.updated).total_seconds()
            raise CliError(
                f"release {release.name} is {found.status} since {since:.0f} s: wait for whoever does that."
                f" If nobody does, `helm -n {release.namespace} rollback {release.name}` (or uninstall) frees it"
            )
        try:
            await self._client.get_proceedable_revision(release.name, namespace=release.namespace)
        except pyhelm3.errors.Error as error:
            raise CliError(f"release {release.name} is stuck in {found.status}: {last_line(error)}") from error

    async def install(self, release: Release, values: Mapping[str, Any], timeout: timedelta) -> int:
        """Installs or upgrades, and waits until everything is ready; the revision's number."""
        try:
            chart = await self._client.get_chart(release.chart)
            revision = await self._client.install_or_upgrade_release(
                release.name,
                chart,
                dict(values),
                namespace=release.namespace,
                create_namespace=False,
                reset_values=True,
                # Fields that an older client set with another manager are the chart's all the same.
                force_conflicts=True,
                wait=True,
                timeout=f"{timeout.total_seconds():.0f}s",
            )
        except pyhelm3.errors.Error as error:
            raise CliError(f"helm upgrade --install {release.name}: {last_line(error)}") from error
        return int(revision.revision)

    async def uninstall(self, release: Release, timeout: timedelta, no_hooks: bool = False) -> None:
        """Uninstalls and waits; nothing happens when the release is not there."""
        try:
            await self._client.uninstall_release(
                release.name,
                namespace=release.namespace,
                no_hooks=no_hooks,
                wait=True,
                timeout=f"{timeout.total_seconds():.0f}s",
            )
        except pyhelm3.errors.Error as error:
            raise CliError(f"helm uninstall {release.name}: {last_line(error)}") from error


def find_charts(given: Path | None, names: Sequence[str] = ("lakeloop", "lakeloop-platform")) -> Path:
    """The folder of both charts: as given, else `charts/` here or above, else beside this checkout. Raises CliError."""
    here = Path.cwd()
    candidates = [given] if given else [folder / "charts" for folder in (here, *here.parents)]
    if not given:
        candidates += [folder / "charts" for folder in Path(__file__).resolve().parents]
    for folder in candidates:
        if all((folder / name / "Chart.yaml").is_file() for name in names):
            return folder
    raise CliError(f"there are no charts {' and '.join(names)} in {given or 'charts/'}: say where with --charts")
