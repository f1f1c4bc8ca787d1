"""`kubectl lakeloop` on the real node: what the samples left, told, followed back, and run again."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli.demo import NAMESPACE, job_over

pytestmark = pytest.mark.e2e
SAMPLES = Path(__file__).parents[2] / "samples"
JOBS = ("quickstart", "breast-cancer")


@dataclass
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def items(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.out + self.err
        found: list[dict[str, Any]] = json.loads(self.out)["items"]
        return found


class Plugin:
    """The installed plugin, as kubectl runs it."""

    def __init__(self, kubeconfig: Path) -> None:
        self._options = ("--kubeconfig", str(kubeconfig))

    def __call__(self, *words: str, timeout: float = 420) -> Done:
        command = ["kubectl-lakeloop", *words, *self._options, "-n", NAMESPACE]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        return Done(done.returncode, done.stdout, done.stderr)

    def newest(self, job: str) -> dict[str, Any]:
        return self("runs", job, "-o", "json").items[0]


@pytest.fixture(scope="module")
def plugin(platform: Any) -> Plugin:
    """With both samples trained, the first of them once more: by the plugin, which waits for the end."""
    found = Plugin(platform.kubeconfig)
    for sample in JOBS:
        platform.kubectl("apply", "-f", str(SAMPLES / sample / "1-data.yaml"))
        platform.until("job", f"{sample}-data", job_over)
        platform.kubectl("apply", "-f", str(SAMPLES / sample / "2-train.yaml"))
        platform.succeeded(sample)
    done = found("run", JOBS[0], "--wait", "--timeout", "400")
    assert done.code == 0, done.out + done.err
    assert "Succeeded" in done.out
    return found


def test_runs(plugin: Plugin) -> None:
    table = plugin("runs")
    assert table.code == 0, table.err
    assert table.out.splitlines()[0].split()[:4] == ["JOB", "RUN", "TRIGGER", "PHASE"]
    newest = plugin.newest(JOBS[0])
    assert (newest["trigger"], newest["phase"]) == ("Manual", "Succeeded")
    assert newest["objective"]["metric"] == "roc_auc"
    assert newest["inputs"][0]["version"] >= 0


def test_logs(plugin: Plugin) -> None:
    done = plugin("logs", "breast-cancer")
    assert done.code == 0, done.err
    assert "training rows" in done.out
    assert len(plugin("logs", "breast-cancer", "--tail", "2").out.splitlines()) == 2


def test_logs_are_followed_to_the_end(plugin: Plugin, platform: Any) -> None:
    before = plugin.newest("quickstart")["number"]
    assert plugin("run", "quickstart").code == 0
    # The run is there a moment later; `logs -f` then waits for its driver.
    platform.until("trainingjob", "quickstart", lambda obj: obj["status"]["run"]["number"] > before)
    done = plugin("logs", "quickstart", "-f")
    assert done.code == 0, done.err
    assert "training rows" in done.out
    assert plugin.newest("quickstart")["phase"] == "Succeeded"


def test_leaderboard(plugin: Plugin) -> None:
    places = plugin("leaderboard", "--metric", "roc_auc", "--limit", "100", "-o", "json").items
    values = [each["metric"]["value"] for each in places if each["metric"]["value"] is not None]
    assert values == sorted(values, reverse=True)
    assert "breast-cancer" in {each["model"] for each in places}
    table = plugin("leaderboard", "--metric", "roc_auc")
    assert table.out.splitlines()[0].split()[:3] == ["RANK", "MODEL", "ROC_AUC"]


def test_lineage_both_ways(plugin: Plugin) -> None:
    run = plugin.newest("breast-cancer")
    version, (table,) = run["model"]["version"], run["inputs"]
    done = plugin("lineage", f"breast-cancer/{version}", "-o", "json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["inputs"] == [table]
    assert found["digest"] == run["model"]["digest"]
    assert (found["job"], found["run"]) == (f"{NAMESPACE}/breast-cancer", run["number"])
    assert found["code"]["digest"].startswith("sha256:")
    assert found["image"]["id"].startswith("sha256:")
    assert found["seed"] == "7"
    assert found["parameters"]["1.C"] == "1"
    assert any(each.startswith("scikit-learn==") for each in found["environment"]["requirements"])
    back = plugin("lineage", f"{table['uri']}@{table['version']}", "-o", "json").items
    assert ("breast-cancer", version) in {(each["model"], each["version"]) for each in back}


@pytest.mark.parametrize("job", JOBS)
def test_reproduced_within_tolerance(plugin: Plugin, platform: Any, job: str) -> None:
    number = plugin.newest(job)["number"]
    done = plugin("reproduce", job, "--run", str(number), "-o", "json")
    assert done.code == 0, done.out + done.err
    verdict = json.loads(done.out)
    assert verdict["equal"]
    assert all(each["equal"] for each in verdict["metrics"])
    assert verdict["model"]["same"] is True, verdict["model"]["message"]
    assert verdict["image"].startswith("the same"), verdict["image"]
    left = platform.kubectl("-n", NAMESPACE, "get", "tj", f"{job}-repro-{number}", "--ignore-not-found", "-o", "name")
    # Deleted, or on its way: the operator ends its MLflow run first.
    if left:
        obj = platform.kubectl.get("trainingjob", f"{job}-repro-{number}")
        assert obj["metadata"].get("deletionTimestamp")


def test_diff(plugin: Plugin) -> None:
    runs = plugin("runs", "breast-cancer", "-o", "json").items
    newest = runs[0]["number"]
    same = plugin("diff", f"breast-cancer:{newest}", f"breast-cancer:{newest}", "-o", "json")
    assert same.items == []
    unlike = plugin(
        "diff", f"breast-cancer:{newest}", f"quickstart:{plugin.newest('quickstart')['number']}", "-o", "json"
    )
    assert {"data", "code", "parameter"} <= {each["what"] for each in unlike.items}


def test_stop_without_a_run_at_work(plugin: Plugin) -> None:
    done = plugin("stop", "breast-cancer")
    assert done.code == 0
    assert "No run of breast-cancer is at work." in done.err
