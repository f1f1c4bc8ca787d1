"""How a roll-out goes, from a ModelDeployment's status: pure."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from lakeloop.cli.training.runs import condition
from lakeloop.cli.training.tables import Column, Row, moment, number, span

Object = Mapping[str, Any]
HISTORY: Final = (
    Column("VERSION"),
    Column("WHY", cut=True),
    Column("SINCE", drop=2),
    Column("SERVED"),
    Column("DIGEST", drop=1, cut=True),
)


def is_settled(deployment: Object) -> bool:
    """Whether the operator has seen the spec as it is, and rolls nothing out."""
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration") == deployment["metadata"].get("generation")
    rolling = condition(deployment, "RollingOut").get("status") == "True"
    return bool(seen and not rolling and "candidate" not in status)


def failed(deployment: Object) -> bool:
    """Whether what should be served is not: rejected, or missing."""
    refused = condition(deployment, "GatesPassed").get("status") == "False"
    return refused or condition(deployment, "Ready").get("status") != "True"


def line(deployment: Object) -> str:
    """Where it stands, in one line."""
    for kind in ("Stalled", "RollingOut", "Suspended", "Ready"):
        found = condition(deployment, kind)
        if found.get("status") == "True" or (kind == "Ready" and found):
            return f"{found.get('reason')}: {found.get('message')}"
    return "the operator has not answered yet"


def percent(deployment: Object) -> float:
    """Of the requests, how many the new version has; all, where nothing is rolled out."""
    candidate = (deployment.get("status") or {}).get("candidate")
    return 100.0 if candidate is None else float(candidate.get("effectiveWeight") or 0)


def fields(deployment: Object) -> list[tuple[str, str]]:
    """Names and values for people."""
    status, spec = deployment.get("status") or {}, deployment["spec"]
    model = spec["model"]
    follows = f"@{model['alias']}" if model.get("alias") else f"/{model.get('version')}"
    refused = next(iter(status.get("rejected") or ()), None)
    steps = ((spec.get("strategy") or {}).get("canary") or {}).get("steps") or ()
    return [
        ("model", f"{model['name']}{follows}"),
        ("stable", _version(model["name"], status.get("stable"), spec)),
        ("candidate", _version(model["name"], status.get("candidate"), spec)),
        ("step", _step(status.get("candidate"), steps)),
        ("analysis", _analysis(status.get("candidate"))),
        ("state", line(deployment)),
        (
            "rejected",
            f"{model['name']}/{refused['version']} {refused['reason']}: {refused['message']}" if refused else "",
        ),
        ("url", status.get("url") or ""),
    ]


def _version(model: str, served: Object | None, spec: Object) -> str:
    if served is None:
        return ""
    learned = ", ".join(f"{each['name']}@{each.get('version')}" for each in served.get("inputs") or ())
    weight, real = served.get("weight"), served.get("effectiveWeight", served.get("weight"))
    share = f"{real} %" if real == weight else f"{real} % ({weight} % wanted)"
    ready = f"{served.get('readyReplicas') or 0} ready"
    return f"{model}/{served['version']}  {share}  {ready}" + (f"  learned from {learned}" if learned else "")


def _step(candidate: Object | None, steps: Sequence[Object]) -> str:
    if candidate is None or candidate.get("step") is None or not steps:
        return ""
    at = candidate["step"]
    told = [" ".join(f"{key} {value}" for key, value in each.items()) for each in steps]
    return " → ".join(f"[{text}]" if index == at else text for index, text in enumerate(told))


def _analysis(candidate: Object | None) -> str:
    words = {True: "good", False: "off"}
    return ", ".join(
        f"{each['metric']} {number(each.get('value'))} of {each.get('requests') or 0} requests:"
        f" {words.get(each.get('passed'), 'too few to tell')}"
        for each in (candidate or {}).get("analysis") or ()
    )


def history(deployment: Object, now: datetime) -> list[Row]:
    """What served when, newest first."""
    rows: list[Row] = []
    for each in (deployment.get("status") or {}).get("history") or ():
        begun, ended = moment(each.get("startTime")), moment(each.get("endTime"))
        rows.append(
            {
                "VERSION": str(each["version"]),
                "WHY": each.get("reason") or "",
                "SINCE": each.get("startTime") or "",
                "SERVED": (span(((ended or now) - begun).total_seconds()) if begun else "")
                + ("" if ended else ", serves"),
                "DIGEST": each.get("digest") or "",
            }
        )
    return rows


def answer(events: Sequence[Object], action: str, asked: str) -> tuple[str, str] | None:
    """Reason and message of the event that answers an action; None where there is none yet."""
    found = [each for each in events if f"lakeloop.io/{action}: {asked}" in (each.get("message") or "")]
    return (str(found[0].get("reason")), str(found[0]["message"])) if found else None


def body_of(content: bytes) -> tuple[str, bytes]:
    """Content type and body of a request to /invocations, from CSV, a list of rows, or such a body."""
    try:
        found = json.loads(content)
    except ValueError:
        return "text/csv", content
    if not isinstance(found, list):
        return "application/json", content
    rows = all(isinstance(each, dict) for each in found)
    return "application/json", json.dumps({"dataframe_records" if rows else "inputs": found}).encode()
