"""What a pass sees of a TrainingJob and its world, and what it can do outside Kubernetes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lakeloop.api.v1alpha1.trainingjob import FailureClass, RunInput, TrainingJob
from lakeloop.domain.plan import Effect, Manifest
from lakeloop.render.training.names import Platform


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


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """The model version that the run registered."""

    version: int
    aliases: Sequence[str]


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
    tracked: SeenRun | None = None
    record: Mapping[str, Any] | None = None
    """`lakeloop/result.json` of the MLflow run, where the driver's own message cannot be had."""
    version: SeenVersion | None = None
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


@dataclass(frozen=True, slots=True)
class EndRun(Effect):
    """Sets the run's final state in MLflow."""

    run_id: str
    status: Literal["FINISHED", "FAILED", "KILLED"]
    ended: datetime
    best_effort: bool
    """Whether the plan goes on where MLflow cannot be reached."""


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
    """Points the alias to the version."""

    model: str
    alias: str
    version: int
