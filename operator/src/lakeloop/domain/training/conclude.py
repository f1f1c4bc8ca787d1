"""The end of a run: the driver's result, the registration, and what the gates say."""

from collections.abc import Mapping, Sequence

from lakeloop.api.v1alpha1.defaults import EffectiveRegistration
from lakeloop.api.v1alpha1.spec_hash import code_digest
from lakeloop.api.v1alpha1.trainingjob import (
    ChampionScore,
    Run,
    RunModel,
)
from lakeloop.domain.plan import Effect, Plan
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.driver import DriverFailure, Result, ScoredChampion
from lakeloop.domain.training.gates import (
    Verdict,
    champion_alias,
    gate_tags,
    has_gates,
    judge,
)
from lakeloop.domain.training.observed import RegisterVersion, SetAlias, TagVersion
from lakeloop.domain.training.outcomes import fail, finish, recorded, wait
from lakeloop.domain.training.situation import Situation, warning
from lakeloop.domain.training.watch import adopted, with_versions
from lakeloop.status.training import Accepted, Said, violations


def outcome(sit: Situation) -> Result | None:
    """What the driver said at the end: by its pod, or by the record that it left in MLflow."""
    run, attempt = sit.active, sit.identity.attempt
    said = drivers.result(sit.driver, run.uid, attempt) if sit.driver is not None else None
    if said is not None and said.whole:
        return said
    return drivers.read_result(sit.observed.record, run.uid, attempt) or said


def conclude(sit: Situation) -> Plan | None:
    """The driver is over or gone: its result decides, and without one its death is an infrastructure failure."""
    run = sit.active
    result = outcome(sit)
    if result is None:
        if sit.observed.problems:
            return wait(sit, "record", sit.observed.problems[0])
        return fail(sit, "death", drivers.death(sit.driver), adopted(sit, sit.driver) if sit.driver else run)
    metrics = dict(result.metrics) | ({result.objective[0]: result.objective[1]} if result.objective else {})
    run = run.model_copy(
        update={
            "inputs": with_versions(run.inputs, result.inputs),
            "metrics": metrics or None,
            "expectations": tuple(result.expectations) or None,
            "search": result.search,
            "failure": None,
        }
    )
    if result.failure is not None:
        return fail(sit, "driver-failed", result.failure, run)
    if result.champion is not None:
        run = run.model_copy(update={"champion": _champion_score(result.champion)})
    if sit.observed.problems:
        return wait(sit, "conclude", sit.observed.problems[0], run.model_copy(update={"phase": "Evaluating"}))
    registration = sit.run_spec.registration
    if registration is None:
        verdict = _verdict(sit, result, metrics)
        return _over(sit, run, result, verdict, "the model is logged; spec.register is not set", ())
    return _registered(sit, run, result, registration, metrics)


def _champion_score(scored: ScoredChampion) -> ChampionScore:
    changes = tuple(scored.schema_changes) or None
    return ChampionScore(version=scored.version, metric=scored.value, schema_changes=changes)


def _verdict(sit: Situation, result: Result, metrics: Mapping[str, float]) -> Verdict | None:
    """What the gates say; None where there are none."""
    if not has_gates(sit.run_spec):
        return None
    seen = sit.observed
    now = seen.champion.version if seen.champion is not None else None
    if seen.version is not None and now == seen.version.version:
        # The alias is moved already: that was decided before the champion lost it.
        now = result.champion.version if result.champion is not None else None
    return judge(sit.run_spec, result, metrics, now)


def _registered(
    sit: Situation, run: Run, result: Result, registration: EffectiveRegistration, metrics: Mapping[str, float]
) -> Plan:
    seen, model = sit.observed, result.model or {}
    if not model.get("artifactUri"):
        lost = DriverFailure("Infrastructure", "ResultIncomplete", "the driver's result names no model")
        return fail(sit, "register", lost, run)
    if seen.version is None:
        evaluating = run.model_copy(update={"phase": "Evaluating"})
        said = Said("InProgress", "Registering", f"run {run.number}: the model is being registered")
        registering = [_register(sit, run, result, registration)]
        return sit.plan("register", said, run=evaluating, effects=registering, requeue_after=0)
    version = seen.version.version
    known = run.model_copy(
        update={
            "model": RunModel(
                name=registration.model,
                version=version,
                uri=f"models:/{registration.model}/{version}",
                digest=model.get("digest"),
            )
        }
    )
    verdict = _verdict(sit, result, metrics)
    effects: list[Effect] = []
    if verdict is not None:
        effects.append(TagVersion(registration.model, version, gate_tags(verdict, result)))
    alias = registration.alias if registration.promote == "OnPass" and (verdict is None or verdict.passed) else None
    if alias and alias not in seen.version.aliases:
        guarded = champion_alias(sit.run_spec) == (registration.model, alias)
        compared = result.champion.version if result.champion is not None else None
        effects.append(SetAlias(registration.model, alias, version, guarded=guarded, instead_of=compared))
    suffix = f", alias {alias}" if alias else ""
    return _over(sit, known, result, verdict, f"registered {registration.model}/{version}{suffix}", effects)


def _register(sit: Situation, run: Run, result: Result, registration: EffectiveRegistration) -> RegisterVersion:
    model = result.model or {}
    job = f"{sit.identity.namespace}/{sit.identity.job}"
    tags = {
        **registration.tags,
        "lakeloop.io/run-uid": run.uid,
        "lakeloop.io/training-job": job,
        "lakeloop.io/run": str(run.number),
        "lakeloop.io/trigger": run.trigger,
        **provenance(sit, run),
        **{f"lakeloop.io/input.{each.name}": f"{each.uri}@{each.version}" for each in run.inputs or ()},
    }
    if model.get("digest"):
        tags["lakeloop.io/digest"] = str(model["digest"])
    if result.objective:
        tags[f"lakeloop.io/metric.{result.objective[0]}"] = repr(result.objective[1])
    return RegisterVersion(
        model=registration.model,
        source=str(model["artifactUri"]),
        run_id=run.mlflow.run_id if run.mlflow else "",
        run_uid=run.uid,
        model_id=model.get("modelId"),
        description=f"Run {run.number} of TrainingJob {job}",
        tags=tags,
    )


def _over(
    sit: Situation, run: Run, result: Result, verdict: Verdict | None, message: str, effects: Sequence[Effect]
) -> Plan:
    """The end of a run whose driver did well: what the gates say of its model decides."""
    note = violations(run)
    events = (warning("ExpectationViolated", f"run {run.number}: {note}"),) if note else ()
    if verdict is None or verdict.passed:
        said = Said("Succeeded", "RunSucceeded", message, accepted=_accepted(verdict), data_note=note)
        return finish(
            sit, "succeeded", "Succeeded", said, run, objective=result.objective, effects=effects, events=events
        )
    found = DriverFailure("Gate", verdict.reason, verdict.message, verdict.field, retriable=False)
    failed = run.model_copy(update={"failure": recorded(found)})
    text = f"{found.text} ({message})"
    said = Said("Failed", verdict.reason, text, accepted=_accepted(verdict))
    return finish(sit, "gate", "Failed", said, failed, objective=result.objective, effects=effects, events=events)


def _accepted(verdict: Verdict | None) -> Accepted:
    if verdict is None:
        return Accepted("Unknown", "NotJudged", "spec.evaluation asks for nothing")
    return Accepted("True" if verdict.passed else "False", verdict.reason, verdict.message)


def provenance(sit: Situation, run: Run) -> dict[str, str]:
    """Tags by which a model leads back to what made it, after the job is gone too."""
    launched = sit.run_spec.spark.image or sit.observed.platform.trainer_image
    image = drivers.running_image(sit.driver, launched)
    return {
        "lakeloop.io/spec-hash": run.training_spec_hash or sit.spec_hash,
        "lakeloop.io/code-digest": code_digest(sit.written),
        **({"lakeloop.io/code-files-digest": run.code_digest} if run.code_digest else {}),
        "lakeloop.io/image": image.reference,
        **({"lakeloop.io/image-id": image.id} if image.id else {}),
        "lakeloop.io/seed": str(sit.run_spec.dataset.split.seed),
    }
