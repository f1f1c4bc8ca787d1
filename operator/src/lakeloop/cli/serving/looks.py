"""`kubectl lakeloop status NAME | history | predict`: how a roll-out goes, what served when, what a model answers."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from lakeloop.cli.errors import CliError
from lakeloop.cli.serving import rollouts
from lakeloop.cli.serving.actions import follow, timeout_option
from lakeloop.cli.serving.options import Target, connect, deployment_argument
from lakeloop.cli.training import options, output
from lakeloop.cli.training.forward import LOOPBACK, to_pod
from lakeloop.cli.training.platform import ServicePort, target_of

ANSWER_SECONDS: Final = 120


def of_one(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a look at one deployment."""
    for option in (
        options.form,
        timeout_option,
        click.option("--watch", "-w", is_flag=True, help="Until nothing is rolled out; exit code 1 where that failed."),
        click.option("--namespace", "-n", help="Of DEPLOYMENT; default: the context's."),
    ):
        command = option(command)
    return command


@output.in_one_sentence
def show(
    deployment: str,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    watch: bool,
    timeout: int | None,
    output_form: str,
) -> None:
    """How the roll-out of one deployment goes."""
    target = connect(kubeconfig, context, namespace)
    if watch:
        follow(target, deployment, timeout)
        return
    found = target.deployments.get(target.namespace, deployment)
    if output_form == "table":
        output.fields(rollouts.fields(found))
        return
    kept = ("stable", "candidate", "rejected", "lastRollout", "url", "conditions")
    status = found.get("status") or {}
    named = {"namespace": target.namespace, "name": deployment, "model": found["spec"]["model"]}
    output.document("Rollout", {**named, **{key: status.get(key) for key in kept}}, output_form)


@click.command("history")
@deployment_argument
@options.on_the_cluster
@options.form
@output.in_one_sentence
def history(
    deployment: str, kubeconfig: Path | None, context: str | None, namespace: str | None, output_form: str
) -> None:
    """What served when, newest first, and why that changed."""
    target = connect(kubeconfig, context, namespace)
    found = target.deployments.get(target.namespace, deployment)
    records = (found.get("status") or {}).get("history") or ()
    if output_form != "table":
        output.documents("ServingRecordList", records, output_form)
    elif records:
        output.table(rollouts.HISTORY, rollouts.history(found, datetime.now(UTC)))
    else:
        output.note(f"Nothing has served yet: `kubectl lakeloop status {deployment}` says why.")


@click.command("predict")
@deployment_argument
@options.on_the_cluster
@click.option(
    "--file",
    "-f",
    "source",
    type=click.File("rb"),
    default="-",
    show_default="standard input",
    help="CSV with a header line, a JSON list of rows, or a body as /invocations takes it.",
)
@click.option("--url", help="Where the model answers, reached from here; default: through the cluster.")
@output.in_one_sentence
def predict(
    deployment: str,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    source: Any,
    url: str | None,
) -> None:
    """Send rows to a served model, and print its predictions, one in a line."""
    target = connect(kubeconfig, context, namespace)
    target.deployments.get(target.namespace, deployment)
    content_type, body = rollouts.body_of(source.read())
    if url is not None:
        model, answer = _asked(f"{url.rstrip('/')}/invocations", content_type, body)
    else:
        model, answer = _through_the_cluster(target, deployment, content_type, body)
    output.note(f"{model} answers")
    predictions = answer.get("predictions") if isinstance(answer, dict) else answer
    for each in predictions if isinstance(predictions, list) else [predictions]:
        sys.stdout.write(json.dumps(each) + "\n")


def _through_the_cluster(target: Target, name: str, content_type: str, body: bytes) -> tuple[str, Any]:
    service = ServicePort(target.namespace, name, 80)
    with closing(
        to_pod(target.deployments.cluster, target_of(target.deployments.cluster, service, "--url"))
    ) as forward:
        return _asked(f"http://{LOOPBACK}:{forward.port}/invocations", content_type, body)


def _asked(url: str, content_type: str, body: bytes) -> tuple[str, Any]:
    """The model's name and version, and its answer."""
    if not url.startswith(("http://", "https://")):
        raise CliError(f"{url} is no address: write http://… or https://…")
    request = urllib.request.Request(url, body, {"Content-Type": content_type})  # noqa: S310 - checked above
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if LOOPBACK in url else []))
    try:
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return answer.headers.get("x-lakeloop-model") or "the model", json.load(answer)
    except urllib.error.HTTPError as error:
        raise CliError(f"the model refuses ({error.code}): {_message(error.read())}") from error
    except (OSError, ValueError) as error:
        raise CliError(f"{url} does not answer as a model does: {error}") from error


def _message(content: bytes) -> str:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return str(found["message"]) if isinstance(found, dict) and "message" in found else content.decode(errors="replace")
