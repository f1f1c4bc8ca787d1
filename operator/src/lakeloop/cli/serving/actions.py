"""`kubectl lakeloop promote | abort | retry | rollback | approve`: actions on a roll-out, and what comes of them."""

import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from lakeloop.cli.errors import CliError
from lakeloop.cli.serving import rollouts
from lakeloop.cli.serving.options import Target, connect, deployment_argument
from lakeloop.cli.training import options, output, waiting

ANSWER_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.3
REFUSALS: Final = frozenset({"NothingToPromote", "NothingToAbort", "RollbackRefused", "InvalidAction"})
"""Reasons of events by which the operator says that an action cannot be done."""

wait_option = click.option("--wait", is_flag=True, help="Until nothing is rolled out; exit code 1 where that failed.")
timeout_option = click.option("--timeout", type=click.IntRange(min=1), help="With --wait or --watch: seconds at most.")


def _action(name: str, text: str) -> Callable[..., Any]:
    @click.command(name, help=text)
    @deployment_argument
    @options.on_the_cluster
    @wait_option
    @timeout_option
    @output.in_one_sentence
    def command(
        deployment: str,
        kubeconfig: Path | None,
        context: str | None,
        namespace: str | None,
        wait: bool,
        timeout: int | None,
    ) -> None:
        target = connect(kubeconfig, context, namespace)
        _ask(target, deployment, name, _new_id(), wait, timeout)

    return command


promote = _action("promote", "End the pause of a canary: it goes on to its next step.")
abort = _action("abort", "Reject the version that is being rolled out; what serves, serves on.")
retry = _action("retry", "Try again what was rejected.")


@click.command("rollback")
@deployment_argument
@options.on_the_cluster
@click.option("--to", type=click.IntRange(min=1), help="A version of `history`; default: the one that served before.")
@wait_option
@timeout_option
@output.in_one_sentence
def rollback(
    deployment: str,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    to: int | None,
    wait: bool,
    timeout: int | None,
) -> None:
    """Serve what served before, at once. The version that serves is rejected until the alias moves."""
    target = connect(kubeconfig, context, namespace)
    asked = _new_id() if to is None else f"to-{to}-{_new_id()}"
    _ask(target, deployment, "rollback", asked, wait, timeout)


@click.command("approve")
@deployment_argument
@click.argument("version", type=click.IntRange(min=1))
@options.on_the_cluster
@wait_option
@timeout_option
@output.in_one_sentence
def approve(
    deployment: str,
    version: int,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    wait: bool,
    timeout: int | None,
) -> None:
    """Let a version that waits for it (`gates.approval: Required`) have requests."""
    target = connect(kubeconfig, context, namespace)
    target.deployments.get(target.namespace, deployment)
    target.deployments.annotate(target.namespace, deployment, "lakeloop.io/approve", str(version))
    output.console.print(f"version {version} of {deployment} may serve, now or when it comes", markup=False)
    if wait:
        follow(target, deployment, timeout)


def _new_id() -> str:
    return f"cli-{uuid.uuid4().hex[:12]}"


def _ask(target: Target, name: str, action: str, asked: str, wait: bool, timeout: int | None) -> None:
    """Asks, says what the operator answers, and ends the process with 1 where it refuses."""
    target.deployments.get(target.namespace, name)
    target.deployments.annotate(target.namespace, name, f"lakeloop.io/{action}", asked)
    reason, message = _answer(target, name, action, asked)
    output.console.print(message, markup=False)
    if reason in REFUSALS:
        sys.exit(1)
    if wait:
        follow(target, name, timeout)


def _answer(target: Target, name: str, action: str, asked: str) -> tuple[str, str]:
    """Reason and message of the event. Raises CliError where the operator stays silent."""
    end, handled = time.monotonic() + ANSWER_SECONDS, False
    while time.monotonic() < end:
        found = rollouts.answer(target.deployments.events(target.namespace, name), action, asked)
        if found is not None:
            return found
        deployment = target.deployments.get(target.namespace, name)
        handled = ((deployment.get("status") or {}).get("lastHandled") or {}).get(action) == asked
        time.sleep(LOOK_SECONDS)
    if handled:
        return "", f"lakeloop.io/{action}: {asked}: done"  # its event was lost
    raise CliError(
        f"asked for {action} of {name} ({asked}), and the operator has not answered: is it running, and does the"
        " registry answer? `kubectl lakeloop status` says; the action stays asked for"
    )


def follow(target: Target, name: str, timeout: int | None) -> None:
    """Shows how the roll-out goes until it is over; ends the process with 1 where it failed."""

    def look() -> waiting.Seen:
        found = target.deployments.get(target.namespace, name)
        over = rollouts.is_settled(found)
        return waiting.Seen(rollouts.line(found), rollouts.percent(found), found if over else None)

    found = waiting.follow(f"the roll-out of {name}", look, timeout)
    output.fields(rollouts.fields(found))
    if rollouts.failed(found):
        sys.exit(1)
