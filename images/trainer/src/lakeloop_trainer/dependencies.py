"""`spec.dependencies.pip`: packages beside those of the image, installed at start where the image lacks them.

What is there in the right version costs nothing and needs no network. The rest is installed beside the image's
packages, never in their place, by pip, whose index and credentials are those of the pod's own environment (`PIP_…`).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from lakeloop_trainer import workspace
from lakeloop_trainer.failures import RunFailure, scrub

FIELD = "spec.dependencies.pip"
TIMEOUT_SECONDS = 600
# the image has MLflow's client, of the same name when imported
_MLFLOW, _SKINNY = "mlflow", "mlflow-skinny"
_ADVICE = (
    "make an image that has it, from the trainer's, and name that in spec.spark.image; or let the pod reach an index, "
    "by PIP_INDEX_URL in the env of spec.spark.driver.template"
)

log = logging.getLogger("lakeloop_trainer")


@dataclass(frozen=True)
class Wanted:
    """One requirement, and the field that asks for it."""

    requirement: Requirement
    field: str


def parse(lines: Sequence[str], field: str = FIELD, *, pinned: bool = True) -> list[Wanted]:
    """The requirements that hold on this machine (markers); raises RunFailure (InvalidConf) for one that is none."""
    found = []
    for index, line in enumerate(lines):
        where = f"{field}[{index}]"
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise RunFailure("InvalidConf", f"{where} is {line!r}, which is no requirement: {error}", where) from error
        specifiers = list(requirement.specifier)
        exact = len(specifiers) == 1 and specifiers[0].operator in ("==", "===") and "*" not in specifiers[0].version
        if requirement.url or (pinned and not exact):
            message = f"{where} is {scrub(line)!r}: write one exact version, as in {requirement.name}==1.0"
            raise RunFailure("InvalidConf", message, where)
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(Wanted(requirement, where))
    return found


def provide(wanted: Sequence[Wanted]) -> list[str]:
    """Makes the requirements importable, here and in child processes; gives them as ``name==version``.

    Raises:
        RunFailure: DependenciesUnavailable, with the field and what to do.
    """
    missing = [each for each in wanted if not _satisfied(each.requirement)]
    for each in missing:
        _refuse_other_version(each)
    if missing:
        _install(missing)
        still = next((each for each in missing if not _satisfied(each.requirement)), None)
        if still is not None:
            raise _unavailable(still, "pip said that it did, and it is not there")
    return [f"{each.requirement.name}=={_installed(each.requirement).version}" for each in wanted]


def importable_below(folder: Path) -> None:
    """Has the processes that this one starts find the folder's modules: Python's workers in Spark, a project."""
    before = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *(part for part in before if part != str(folder))])


def _satisfied(requirement: Requirement, depth: int = 0) -> bool:
    """Whether it is installed, its extras too."""
    try:
        installed = _installed(requirement)
    except metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(installed.version, prereleases=True):
        return False
    if not requirement.extras or depth > 8:
        return True
    needs = [Requirement(text) for text in installed.requires or ()]
    of_extras = [
        each
        for each in needs
        if each.marker is not None
        and not each.marker.evaluate({"extra": ""})
        and any(each.marker.evaluate({"extra": extra}) for extra in requirement.extras)
    ]
    return all(_satisfied(each, depth + 1) for each in of_extras)


def _installed(requirement: Requirement) -> metadata.Distribution:
    name = canonicalize_name(requirement.name)
    if name == _MLFLOW and not requirement.extras:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.distribution(_SKINNY)
    return metadata.distribution(name)


def _refuse_other_version(wanted: Wanted) -> None:
    try:
        has = _installed(wanted.requirement).version
    except metadata.PackageNotFoundError:
        return
    if wanted.requirement.specifier.contains(has, prereleases=True):
        return  # an extra is missing
    raise RunFailure(
        "DependenciesUnavailable",
        f"{wanted.field} asks for {wanted.requirement}, and this image has {wanted.requirement.name} {has}, which its "
        f"other packages were tested with: write {wanted.requirement.name}=={has}, or make an image with the other "
        "version and name that in spec.spark.image",
        wanted.field,
    )


def _install(missing: Sequence[Wanted]) -> None:
    prefix = workspace.folder("packages")
    packages = prefix / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    with tempfile.TemporaryDirectory() as temporary:
        constraints = Path(temporary) / "constraints.txt"
        constraints.write_text("\n".join(_constraints()))
        # --prefix, unlike --target, takes what the image has for installed
        command = [
            sys.executable, "-m", "pip", "install", "--prefix", str(prefix), "--only-binary", ":all:",
            "--no-cache-dir", "--no-input", "--no-compile", "--no-warn-script-location", "--no-warn-conflicts",
            "--disable-pip-version-check", "--retries", "2", "--timeout", "15",
            "--constraint", str(constraints), *(_text(each.requirement) for each in missing),
        ]  # fmt: skip
        log.info("installing %s", ", ".join(_text(each.requirement) for each in missing))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise _unavailable(missing[0], f"pip was not done after {TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        log.error("%s", scrub(f"{done.stdout}{done.stderr}".strip()))
        raise _unavailable(*_blame(missing, done.stderr, done.stdout))
    sys.path.append(str(packages))  # after the image's own
    before = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    os.environ["PYTHONPATH"] = os.pathsep.join([*before, str(packages)])
    importlib.invalidate_caches()


def _text(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _constraints() -> list[str]:
    """Every package that is installed, at its version: pip may add to them and not change them."""
    found = {str(canonicalize_name(each.metadata["Name"])): each.version for each in metadata.distributions()}
    found |= {_MLFLOW: found[_SKINNY]} if _SKINNY in found else {}
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _blame(missing: Sequence[Wanted], errors: str, said: str) -> tuple[Wanted, str]:
    """The requirement that pip's words name, and the words that matter."""
    _, found, conflict = said.partition("The conflict is caused by:\n")
    if found:
        told = "; ".join(line.strip() for line in conflict.partition("\n\n")[0].splitlines())
        told = told.replace("The user requested (constraint)", "the image has")
    else:
        lines = [line.removeprefix("ERROR: ").strip() for line in errors.splitlines() if line.startswith("ERROR:")]
        told = " ".join(lines[-2:]) or (errors.strip().splitlines() or ["pip gave no reason"])[-1]
    named = [each for each in missing if canonicalize_name(each.requirement.name) in told.lower().replace("_", "-")]
    return (named or list(missing))[0], scrub(told)[:500]


def _unavailable(wanted: Wanted, why: str) -> RunFailure:
    what = f"{wanted.field}: {_text(wanted.requirement)} is not in this image and cannot be installed: {why}"
    return RunFailure("DependenciesUnavailable", f"{what[:600]}; {_ADVICE}", wanted.field)
