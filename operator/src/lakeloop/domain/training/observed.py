"""What a pass sees of a TrainingJob and its world, and what it can do outside Kubernetes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lakeloop.api.v1alpha1.trainingjob import FailureClass, RunInput, TrainingJob
from lakeloop.domain.plan import Effect, Manifest
from lakeloop.render.training.names import Platform
from lakeloop.render.training.script import ScriptFiles


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a run needs could not be had."""

    reason: str
    """CamelCase; part of the API."""
    message: str
    field: str | None
    """Path in the resource, from `spec` on."""
    failure: FailureClass
    """What the run fails with where it does not heal."""
    heals: bool = True
    """Whether waiting may help: the run looks again until its deadline. Otherwise it fails at once, without a retry."""

    @property
    def text(self) -> str:
        """The message, with the field before it."""
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True, slots=True)
class SeenRun:
    """The run in MLflow."""

    run_id: str
    experiment_id: str
    artifact_uri: str = ""


@dataclass(frozen=True, slots=True)
class SeenLogs:
    """What the sidecars of a finished run say of its logs."""

    markers: Mapping[str, bool] | None
    """Container (`driver-1`, `executor-1-2`) → whether all of its output is there; None: the store did not answer."""


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """The model version that the run registered."""

    version: int
    aliases: Sequence[str]


@dataclass(frozen=True, slots=True)
class SeenChampion:
    """The version that has the alias of the champion."""

    model: str
    version: int
    source: str
    """Where its files lie."""
    digest: str | None


@dataclass(frozen=True, slots=True)
class NewCommits:
    """What was committed to the delta trigger's table since the last run, as far as it was looked at."""

    version: int
    """The newest version that was looked at; -1: none."""
    commits: int = 0
    """Those that count."""
    rows: int = 0
    """Rows that they add."""
    unknown: int = 0
    """How many of them cannot be read, or tell no rows. They are taken for enough rows, so that none is missed."""
    newest: datetime | None = None
    """When the newest of them was committed."""
    more: bool = False
    """Whether there are versions that were not looked at yet."""
    recreated: bool = False
    """Whether the table is another one than that which the last run read: all of its commits are new."""


@dataclass(frozen=True, slots=True)
class FailedLook:
    """The delta trigger's table could not be looked at."""

    problem: Problem | None
    """None: it may be a blip."""
    again: float
    """Seconds until the next look."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that `decide` knows. What was not looked for, because the run is not there yet, is empty."""

    job: TrainingJob
    raw: Mapping[str, Any]
    """The object as it was read."""
    platform: Platform
    fresh_uid: str
    """A new random uid, for the run that may start."""
    pods: Sequence[Manifest] = ()
    """Driver and executor pods of the job, from a live list."""
    config_map: Manifest | None = None
    """That of the active run, of whichever uid it is."""
    inputs: Sequence[RunInput] = ()
    """The active run's inputs, pinned now; empty unless all could be."""
    manifests: Sequence["WriteManifest"] = ()
    """Ingestion manifests to write before the inputs are pinned."""
    ingested: Mapping[str, int] = field(default_factory=dict)
    """Input → version that an earlier attempt's ingestion made."""
    script: ScriptFiles | None = None
    """The files of the user's ConfigMap, where the run's own does not hold them yet."""
    tracked: SeenRun | None = None
    """The active run in MLflow, where an earlier step of this pass made it or found it."""
    begun: bool = False
    """Whether an earlier step of this pass began the active run: nothing outside can know of it."""
    record: Mapping[str, Any] | None = None
    """`lakeloop/result.json` of the MLflow run, where the driver's own message cannot be had."""
    version: SeenVersion | None = None
    champion: SeenChampion | None = None
    storage_ca: str | None = None
    """The certificates that `storage.caSecretRef` names, PEM."""
    logs: SeenLogs | None = None
    """Of the newest finished run whose logs are not known to be whole."""
    looked: frozenset[str] = frozenset()
    """What was looked for in this pass; see `lookups`."""
    commits: NewCommits | FailedLook | None = None
    """Of the delta trigger's table; None where that was not looked at."""
    problems: Sequence[Problem] = ()
    """What was looked for and could not be had."""
    refusal: Problem | None = None
    """What the cluster or MLflow refused of the plan that this same pass made first."""


@dataclass(frozen=True, slots=True)
class WriteManifest(Effect):
    """Puts an ingestion manifest where there is none yet: the first one written is the one that counts."""

    uri: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DryRun(Effect):
    """Has the API server check a manifest without making it."""

    manifest: Manifest
    field: str
    """Which field of the resource is to blame."""


@dataclass(frozen=True, slots=True)
class EnsureRun(Effect):
    """Makes the run in MLflow, unless one with its uid is there."""

    experiment: str
    name: str
    uid: str
    started: datetime
    tags: Mapping[str, str]
    new: bool = False
    """Whether none can be there yet, so that it need not be looked for."""


@dataclass(frozen=True, slots=True)
class TagRun(Effect):
    """Sets a tag of the run in MLflow, as far as MLflow answers."""

    run_id: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class EndRun(Effect):
    """Sets the run's final state in MLflow."""

    run_id: str
    status: Literal["FINISHED", "FAILED", "KILLED"]
    ended: datetime
    best_effort: bool
    """Whether the plan goes on where MLflow cannot be reached."""
    nested_in: str | None = None
    """The experiment, where runs nested in it may be open still, left by a driver that died: they are ended first."""


@dataclass(frozen=True, slots=True)
class RegisterVersion(Effect):
    """Registers the model, unless a version with the run's uid is there."""

    model: str
    source: str
    run_id: str
    run_uid: str
    model_id: str | None
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SetAlias(Effect):
    """Points the alias to the version.

    `guarded`: only where it points to `instead_of` (None: to nothing) or to the version already.
    """

    model: str
    alias: str
    version: int
    guarded: bool = False
    instead_of: int | None = None


@dataclass(frozen=True, slots=True)
class TagVersion(Effect):
    """Sets tags of a version."""

    model: str
    version: int
    tags: Mapping[str, str]
