"""A recorded run as a TrainingJob that runs it again: pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.common import MAX_NAME
from lakeloop.api.v1alpha1.spec_hash import training_parts
from lakeloop.cli.errors import CliError
from lakeloop.cli.training.records import Record, Table

OF = "cli.lakeloop.io/reproduces"
"""Annotation of the job: `namespace/job:run`. Not below `lakeloop.io/`, where annotations are actions."""
_LEFT_OUT = ("inputs", "evaluation", "register", "spark")
_OF_THE_JOB = ("storage", "runPolicy")


def name_for(job: str, number: int) -> str:
    """`<job>-repro-<n>`; a long job's name is cut, so that it stays a name of a resource."""
    suffix = f"-repro-{number}"
    return f"{job[: MAX_NAME - len(suffix)].rstrip('-')}{suffix}"


def recorded_spec(
    run_json: Mapping[str, Any] | None, config_map: Mapping[str, Any] | None, record: Record
) -> Mapping[str, Any]:
    """The training parts of the spec that the run went by. Raises CliError where nothing holds them."""
    written = (run_json or {}).get("written")
    if isinstance(written, Mapping):
        return written
    data: Mapping[str, str] = (config_map or {}).get("data") or {}
    labels = ((config_map or {}).get("metadata") or {}).get("labels") or {}
    if labels.get("lakeloop.io/run-uid") == record.uid and "spec.json" in data:
        return training_parts(json.loads(data["spec.json"]))
    raise CliError(
        f"the record of {record.name} does not hold the spec that it ran: neither the artifact lakeloop/run.json of its"
        f" MLflow run {record.run_id or '(none)'}, nor a ConfigMap {record.job}-{record.number}-run of this run"
    )


def manifest(
    job: Mapping[str, Any] | None, written: Mapping[str, Any], record: Record, experiment: str | None
) -> dict[str, Any]:
    """The TrainingJob. What was learned from and how is the record's; sizes and credentials are the job's as it is now.

    Inputs are pinned to the recorded versions and nothing is ingested; the model is logged and not registered, and no
    gate is asked, so that nothing but the record is left of it.
    """
    spec: Mapping[str, Any] = (job or {}).get("spec") or {}
    tracking = spec.get("tracking") or {}
    made: dict[str, Any] = {"inputs": inputs(written.get("inputs") or (), record)}
    made |= {key: value for key, value in written.items() if key not in _LEFT_OUT}
    made |= {key: spec[key] for key in _OF_THE_JOB if key in spec}
    made["tracking"] = {
        **({"experiment": experiment} if experiment else {}),
        "tags": {"reproduces": f"{record.namespace}/{record.name}"},
        **({"secretRef": tracking["secretRef"]} if "secretRef" in tracking else {}),
    }
    image = record.tags.get("image")
    spark = {key: value for key, value in (spec.get("spark") or {}).items() if key not in ("image", "conf")}
    spark |= {key: value for key, value in (written.get("spark") or {}).items() if value is not None}
    made["spark"] = {**spark, **({"image": image} if image else {})}
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {
            "name": name_for(record.job, record.number),
            "namespace": record.namespace,
            "annotations": {OF: f"{record.namespace}/{record.name}"},
        },
        "spec": made,
    }


def inputs(written: Sequence[Mapping[str, Any]], record: Record) -> list[dict[str, Any]]:
    """The inputs at their recorded versions. Raises CliError for one whose version the record does not have."""
    recorded: Mapping[str, Table] = {each.name: each for each in record.tables}
    found = []
    for each in written:
        table = recorded.get(each["name"])
        if table is None or table.version is None:
            raise CliError(f"the record of {record.name} has no version of input {each['name']}: it never got that far")
        found.append({"name": table.name, "uri": table.uri, "version": table.version})
    return found
