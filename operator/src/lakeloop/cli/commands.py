"""`kubectl lakeloop up | down | status`, and the group that all commands are in."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lakeloop.cli import progress
from lakeloop.cli import values as chart_values
from lakeloop.cli.cluster import Cluster
from lakeloop.cli.errors import CliError
from lakeloop.cli.lazy import LazyGroup
from lakeloop.cli.releases import Helm, Release, find_charts, find_helm
from lakeloop.cli.serving import looks
from lakeloop.cli.serving.options import deployment_names
from lakeloop.cli.values import DEMO_NAMESPACE, PLATFORM_NAMESPACE, SYSTEM_NAMESPACE, ChartValues, Profile

T = TypeVar("T")
PATIENCE_SECONDS = 20.0  # a registry may stumble once
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Target:
    """The cluster, Helm on it, and the two releases."""

    cluster: Cluster
    helm: Helm
    platform: Release
    lakeloop: Release


def releases(charts: Path) -> tuple[Release, Release]:
    """The platform's release and the operator's."""
    return (
        Release("lakeloop-platform", charts / "lakeloop-platform", PLATFORM_NAMESPACE),
        Release("lakeloop", charts / "lakeloop", SYSTEM_NAMESPACE),
    )


def profile_files(charts: Path, profile: Profile) -> ChartValues:
    """The charts' own `values-<profile>.yaml`."""
    if profile == "any":
        return ChartValues()
    platform, lakeloop = (
        yaml.safe_load((charts / name / f"values-{profile}.yaml").read_text()) or {}
        for name in ("lakeloop-platform", "lakeloop")
    )
    return ChartValues(platform, lakeloop)


async def watch(cluster: Cluster, namespaces: Sequence[str], started: float) -> None:
    """Prints each change of a pod's state, for ever; CliError once waiting makes no sense."""
    said: dict[str, str] = {}
    hopeful = time.monotonic()
    while True:
        pods = [pod for name in namespaces for pod in await asyncio.to_thread(cluster.pods, name)]
        now = {progress.name(pod): progress.state(pod) for pod in pods}
        for pod, state in progress.changes(said, now):
            colour = {"ready": "green", "done": "green"}.get(state, "yellow" if ":" in state else "default")
            console.print(f"  [dim]{time.monotonic() - started:6.1f} s[/]  {pod}  [{colour}]{escape(state)}[/]")
        said = now
        reasons = progress.hopeless(pods)
        if not reasons:
            hopeful = time.monotonic()
        elif time.monotonic() - hopeful > PATIENCE_SECONDS:
            raise CliError("waiting would not help:\n  " + "\n  ".join(reasons))
        await asyncio.sleep(1)


async def while_watching(
    cluster: Cluster, namespaces: Sequence[str], work: Sequence[Coroutine[Any, Any, T]]
) -> list[T]:
    """Does all the work at once, telling what the pods do meanwhile. Raises CliError, once, with all that failed."""
    watcher: asyncio.Future[Any] = asyncio.create_task(watch(cluster, namespaces, time.monotonic()))
    all_work: asyncio.Future[Any] = asyncio.gather(*work, return_exceptions=True)
    try:
        await asyncio.wait([watcher, all_work], return_when=asyncio.FIRST_COMPLETED)
        if not all_work.done():
            watcher.result()
        results = await all_work
        failures = [each for each in results if isinstance(each, BaseException)]
        if failures:
            raise CliError("\n".join(map(str, failures))) from failures[0]
        return [each for each in results if not isinstance(each, BaseException)]
    finally:
        watcher.cancel()
        all_work.cancel()
        await asyncio.gather(watcher, all_work, return_exceptions=True)


def show_logs(cluster: Cluster, namespaces: Sequence[str]) -> None:
    """The last lines of each container that is not ready."""
    for pod in (pod for name in namespaces for pod in cluster.pods(name) if not progress.is_ready(pod)):
        for one in progress.statuses(pod):
            done = (one.get("state", {}).get("terminated") or {}).get("exitCode") == 0
            text = "" if one.get("ready") or done else cluster.log(pod, one["name"])
            if text:
                console.print(f"\n[bold]{progress.name(pod)}, {one['name']}[/]\n{escape(text)}")


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    for option in (
        click.option(
            "--charts", type=click.Path(path_type=Path), help="The folder of the charts; found by itself in a checkout."
        ),
        click.option("--helm", help="The Helm 4 to run; default LAKELOOP_HELM, then PATH."),
        click.option("--context", help="The kubeconfig's context."),
        click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: as kubectl finds it."),
    ):
        command = option(command)
    return command


def target(kubeconfig: Path | None, context: str | None, helm: str | None, charts: Path | None) -> Target:
    """Everything that a command works on. Raises CliError where a part of it is missing."""
    platform, lakeloop = releases(find_charts(charts))
    return Target(Cluster(kubeconfig, context), Helm(find_helm(helm), kubeconfig, context), platform, lakeloop)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a command; a CliError ends the process with its message and exit code 1."""
    try:
        asyncio.run(work)
    except CliError as error:
        console.print(f"\n[bold red]Error:[/] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nStopped; the same command goes on from here.")
        sys.exit(130)


class Commands(LazyGroup):
    """`up`, `down` and `status` are here; what is about trainings and served models, where it belongs."""

    lazy = {  # noqa: RUF012
        "runs": "lakeloop.cli.training.run_commands:list_runs",
        "run": "lakeloop.cli.training.run_commands:run_now",
        "stop": "lakeloop.cli.training.run_commands:stop",
        "logs": "lakeloop.cli.training.log_commands:show_logs",
        "leaderboard": "lakeloop.cli.training.registry_commands:show_leaderboard",
        "lineage": "lakeloop.cli.training.registry_commands:show_lineage",
        "diff": "lakeloop.cli.training.record_commands:diff",
        "reproduce": "lakeloop.cli.training.record_commands:reproduce",
        "history": "lakeloop.cli.serving.looks:history",
        "predict": "lakeloop.cli.serving.looks:predict",
        "promote": "lakeloop.cli.serving.actions:promote",
        "abort": "lakeloop.cli.serving.actions:abort",
        "retry": "lakeloop.cli.serving.actions:retry",
        "rollback": "lakeloop.cli.serving.actions:rollback",
        "approve": "lakeloop.cli.serving.actions:approve",
        "completion": "lakeloop.cli.completion:completion",
        "__complete": "lakeloop.cli.completion:complete",
    }


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Install Lakeloop and look after it: runs, their logs, the models, where they come from, and how they serve."""


@cli.command()
@common
@click.option(
    "--profile",
    type=click.Choice(["local", "kind", "any"]),
    default="any",
    show_default=True,
    help="local and kind: MLflow, MinIO and served models answer on the node's address.",
)
@click.option(
    "--images", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="images.json of the image builder."
)
@click.option(
    "--values",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML with the keys platform and lakeloop.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="CHART.PATH=VALUE", help="For example platform.minio.enabled=false."
)
@click.option(
    "--namespace",
    "-n",
    "namespaces",
    multiple=True,
    default=[DEMO_NAMESPACE],
    show_default=True,
    help="A namespace that trains or serves: made, and given a key to the store.",
)
@click.option(
    "--timeout", type=click.IntRange(min=1), default=600, show_default=True, help="Seconds to wait until all is ready."
)
def up(
    kubeconfig: Path | None,
    context: str | None,
    helm: str | None,
    charts: Path | None,
    profile: Profile,
    images: Path | None,
    files: Sequence[Path],
    settings: Sequence[str],
    namespaces: Sequence[str],
    timeout: int,
) -> None:
    """Install or upgrade the platform (MinIO, PostgreSQL, MLflow) and the operator."""

    async def work() -> None:
        on = target(kubeconfig, context, helm, charts)
        addresses = [] if profile == "any" else await asyncio.to_thread(on.cluster.node_addresses)
        values = chart_values.combine(
            profile_files(on.platform.chart.parent, profile),
            chart_values.from_profile(profile, addresses),
            chart_values.from_workloads(namespaces),
            chart_values.from_images(json.loads(images.read_text())) if images else ChartValues(),
            *(chart_values.from_file(yaml.safe_load(file.read_text()), str(file)) for file in files),
            chart_values.from_settings(settings),
        )
        limit = timedelta(seconds=timeout)
        for release in (on.platform, on.lakeloop):
            await on.helm.free(release, limit, datetime.now(UTC))
        for name in (SYSTEM_NAMESPACE, PLATFORM_NAMESPACE, *namespaces):
            await asyncio.to_thread(on.cluster.ensure_namespace, name)
        watched = (PLATFORM_NAMESPACE, SYSTEM_NAMESPACE)
        console.print(f"Installing {on.platform.name} and {on.lakeloop.name}:")
        try:
            await while_watching(
                on.cluster,
                watched,
                [
                    on.helm.install(on.platform, values.platform, limit),
                    on.helm.install(on.lakeloop, values.lakeloop, limit),
                ],
            )
        except CliError:
            await asyncio.to_thread(show_logs, on.cluster, watched)
            raise
        await report(on)

    run(work())


@cli.command()
@common
@click.option(
    "--delete-data",
    is_flag=True,
    help="Delete the volumes and the generated passwords too: all models and tables are lost.",
)
@click.option("--no-hooks", is_flag=True, help="Don't take the operator's finalizer off the objects first.")
@click.option("--timeout", type=click.IntRange(min=1), default=300, show_default=True, help="Seconds to wait.")
def down(
    kubeconfig: Path | None,
    context: str | None,
    helm: str | None,
    charts: Path | None,
    delete_data: bool,
    no_hooks: bool,
    timeout: int,
) -> None:
    """Uninstall both. CRDs and the objects of both kinds stay, and so do volumes and passwords."""

    async def work() -> None:
        on = target(kubeconfig, context, helm, charts)
        limit = timedelta(seconds=timeout)
        # The operator first: it may still need the platform for what it is doing.
        for release in (on.lakeloop, on.platform):
            console.print(f"Uninstalling {release.name}:")
            await while_watching(on.cluster, [release.namespace], [on.helm.uninstall(release, limit, no_hooks)])
            # Helm leaves what its test hook made.
            made = f"app.kubernetes.io/instance={release.name},app.kubernetes.io/managed-by=Helm"
            await asyncio.to_thread(on.cluster.delete_pods, release.namespace, made)
            if delete_data:
                claims = f"app.kubernetes.io/instance={release.name},app.kubernetes.io/name in (minio, postgresql)"
                await asyncio.to_thread(on.cluster.delete_data, release.namespace, made, claims)
        console.print("Done." if delete_data else "Done; volumes, passwords, CRDs and their objects are still there.")

    run(work())


@cli.command()
@common
@click.argument("deployment", required=False, shell_complete=deployment_names)
@looks.of_one
def status(
    kubeconfig: Path | None,
    context: str | None,
    helm: str | None,
    charts: Path | None,
    deployment: str | None,
    **of_one: Any,
) -> None:
    """What is installed, whether it is ready, and where it answers; with DEPLOYMENT: which version serves, which is on
    its way, its step, and what it waits for."""
    if deployment is not None:
        looks.show(deployment, kubeconfig, context, **of_one)
        return

    async def work() -> None:
        await report(target(kubeconfig, context, helm, charts))

    run(work())


async def report(on: Target) -> None:
    """Releases, pods and addresses."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("RELEASE", "REVISION", "STATUS", "PODS"):
        table.add_column(column)
    for release in (on.platform, on.lakeloop):
        found = await on.helm.installed(release)
        pods = await asyncio.to_thread(on.cluster.pods, release.namespace)
        running = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]
        ready = f"{sum(map(progress.is_ready, running))}/{len(running)} ready"
        table.add_row(
            release.name, str(found.revision) if found else "-", found.status if found else "not installed", ready
        )
    console.print(table)
    addresses = await asyncio.to_thread(on.cluster.node_addresses)
    for name, what in (("mlflow", "MLflow"), ("minio", "MinIO")):
        service = await asyncio.to_thread(on.cluster.service, PLATFORM_NAMESPACE, name)
        if service is None:
            continue
        port = service["spec"]["ports"][0]
        reached = (
            f"http://{addresses[0]}:{port['nodePort']}"
            if port.get("nodePort") and addresses
            else f"kubectl -n {PLATFORM_NAMESPACE} port-forward svc/{name} {port['port']}"
        )
        console.print(f"{what:<8}{reached}")
