"""The demo: the quickstart's three manifests applied as a user would, and a prediction asked over HTTP.

Exit code 0 only when the served model answered, and answered what the same model fitted by hand answers.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

NAMESPACE = "lakeloop-demo"
console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """The demo cannot go on; the message says what was seen last and where to look."""


class Kubectl:
    """kubectl with one kubeconfig. Raises DemoError with kubectl's own words."""

    def __init__(self, kubeconfig: Path, executable: str = "kubectl") -> None:
        self._base = [executable, "--kubeconfig", str(kubeconfig)]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._base, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> Mapping[str, Any]:
        """The object as the API server has it."""
        found: Mapping[str, Any] = json.loads(self("-n", namespace, "get", kind, name, "-o", "json"))
        return found


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of that type; empty when there is none."""
    conditions: Sequence[Mapping[str, Any]] = obj.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def fresh(obj: Mapping[str, Any]) -> bool:
    """Whether status speaks of the present spec."""
    seen: Any = obj.get("status", {}).get("observedGeneration")
    return bool(seen == obj["metadata"]["generation"])


def describe_run(obj: Mapping[str, Any]) -> str:
    """One line on a TrainingJob: phase, stage, percent, or what it waits for."""
    run = obj.get("status", {}).get("run", {})
    progress = run.get("progress", {})
    parts = [f"run {run.get('number', '-')}", str(run.get("phase", "Pending"))]
    if progress.get("stage") and run.get("phase") == "Running":
        parts.append(f"{progress['stage']} {progress.get('percent', 0)} %")
    stalled = condition(obj, "Stalled")
    if stalled.get("status") == "True":
        parts.append(f"{stalled['reason']}: {stalled['message']}")
    return " · ".join(parts)


def describe_deployment(obj: Mapping[str, Any]) -> str:
    """One line on a ModelDeployment."""
    status = obj.get("status", {})
    parts = [
        f"{side} v{status[side]['version']} ({status[side].get('readyReplicas', 0)} ready)"
        for side in ("stable", "candidate")
        if status.get(side)
    ]
    stalled = condition(obj, "Stalled")
    if stalled.get("status") == "True":
        parts.append(f"{stalled['reason']}: {stalled['message']}")
    return " · ".join(parts) or "starting"


def wait(
    what: str,
    look: Callable[[], Mapping[str, Any]],
    done: Callable[[Mapping[str, Any]], bool],
    describe: Callable[[Mapping[str, Any]], str],
    timeout: float,
) -> Mapping[str, Any]:
    """Polls until `done`, telling each change. Raises DemoError after `timeout` seconds."""
    started, said = time.monotonic(), ""
    while True:
        obj = look()
        line = describe(obj)
        if line != said:
            console.print(f"  [dim]{time.monotonic() - started:5.1f} s[/]  {line}")
            said = line
        if done(obj):
            return obj
        if time.monotonic() - started > timeout:
            raise DemoError(f"{what} was not done after {timeout:.0f} s; seen last: {line or 'nothing'}")
        time.sleep(0.5)


def training_over(obj: Mapping[str, Any]) -> bool:
    """Ready, or failed for good (then raises DemoError with the failure)."""
    run = obj.get("status", {}).get("run", {})
    if fresh(obj) and run.get("phase") == "Failed":
        failure = run.get("failure", {})
        raise DemoError(
            f"run {run.get('number')} failed: {failure.get('class')}/{failure.get('reason')}: {failure.get('message')}"
        )
    return fresh(obj) and condition(obj, "Ready").get("status") == "True" and run.get("phase") == "Succeeded"


def job_over(obj: Mapping[str, Any]) -> bool:
    """A batch Job that is complete; DemoError when it failed."""
    if condition(obj, "Failed").get("status") == "True":
        raise DemoError(f"Job {obj['metadata']['name']} failed: {condition(obj, 'Failed').get('message')}")
    return condition(obj, "Complete").get("status") == "True"


def address(kubectl: Kubectl, service: str, namespace: str = NAMESPACE) -> str:
    """`http://host:port` of a NodePort Service, without a port-forward. DemoError when it is of another type."""
    ports = kubectl.get("service", service, namespace)["spec"]["ports"]
    if "nodePort" not in ports[0]:
        raise DemoError(
            f"Service {namespace}/{service} has no NodePort: install with --profile local or kind,"
            " or use kubectl port-forward"
        )
    node = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]
    return f"http://{node_host(node)}:{ports[0]['nodePort']}"


def node_host(node: Mapping[str, Any]) -> str:
    """Where this machine reaches a node's ports: its own address, but kind's through the ports that it maps."""
    if str(node.get("spec", {}).get("providerID", "")).startswith("kind://"):
        return "127.0.0.1"
    addresses: Sequence[Mapping[str, str]] = node["status"]["addresses"]
    return next(each["address"] for each in addresses if each["type"] == "InternalIP")


def predict(url: str, features: Sequence[int]) -> tuple[list[int], str]:
    """Asks `/invocations`; the predictions, and which model answered (`name/version`)."""
    body = json.dumps({"dataframe_split": {"columns": ["feature"], "data": [[value] for value in features]}}).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)["predictions"], str(answer.headers["x-lakeloop-model"])
    except (urllib.error.URLError, OSError) as error:
        raise DemoError(f"{url}/invocations did not answer: {error}") from error


def by_hand(samples: Path, features: Sequence[int]) -> list[int]:
    """What the same model fitted on this machine answers."""
    uv = os.environ.get("UV", "uv")  # `uv run`, by which this is started, says where it is
    command = [uv, "run", "--quiet", "--script", str(samples / "by_hand.py"), *map(str, features)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise DemoError("by_hand.py needs uv, which is not on PATH: pip install uv") from error
    if done.returncode:
        raise DemoError(f"by_hand.py: {done.stderr.strip()}")
    answers: list[int] = json.loads(done.stdout)
    return answers


def run(kubectl: Kubectl, samples: Path) -> None:
    """The whole demo. Raises DemoError where it fails."""
    features = [1, 2, 3, 4, 5]

    def apply(file: str, why: str) -> None:
        console.print(f"\n[bold]{why}[/]\n  [cyan]kubectl apply -f {samples / file}[/]")
        kubectl("apply", "-f", str(samples / file))

    apply("1-data.yaml", "Five rows of raw JSON go into the bucket raw.")
    wait(
        "The upload",
        lambda: kubectl.get("job", "quickstart-data"),
        job_over,
        lambda obj: f"Job {'done' if obj['status'].get('succeeded') else 'running'}",
        180,
    )
    apply("2-train.yaml", "Raw JSON → Delta table → LogisticRegression → registered model.")
    job = wait("The training", lambda: kubectl.get("trainingjob", "quickstart"), training_over, describe_run, 600)
    trained = job["status"]["run"]
    console.print(f"  {kubectl('-n', NAMESPACE, 'get', 'tj', 'quickstart')}")
    apply("3-serve.yaml", "The model that has the alias champion is served.")
    wait(
        "The rollout",
        lambda: kubectl.get("modeldeployment", "quickstart"),
        lambda obj: (
            fresh(obj)
            and condition(obj, "Ready").get("status") == "True"
            and obj["status"]["stable"]["version"] == trained["model"]["version"]
        ),
        describe_deployment,
        300,
    )
    console.print(f"  {kubectl('-n', NAMESPACE, 'get', 'md', 'quickstart')}")
    url = address(kubectl, "quickstart")
    answers, model = predict(url, features)
    expected = by_hand(samples, features)
    console.print(f"\n[bold]Asked over HTTP[/] {url}/invocations")
    console.print(f"  feature {features} → [bold green]{answers}[/]  from {model}")
    if answers != expected:
        raise DemoError(f"the same model fitted by hand answers {expected}")
    console.print("  the same model fitted by hand answers the same")
    console.print(f"\nThe run in MLflow: {trained['mlflow']['url']}\nThe cluster stays up: `make down` takes it away.")


@click.command()
@click.option("--kubeconfig", type=click.Path(exists=True, path_type=Path), required=True)
@click.option(
    "--samples", type=click.Path(exists=True, path_type=Path), default=Path("samples/quickstart"), show_default=True
)
@click.option("--kubectl", "executable", default="kubectl", show_default=True, help="The kubectl to run.")
def main(kubeconfig: Path, samples: Path, executable: str) -> None:
    """Apply the quickstart and print a served prediction."""
    try:
        run(Kubectl(kubeconfig, executable), samples)
    except DemoError as error:
        console.print(f"\n[bold red]The demo failed:[/] {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
