"""What the demo takes for done, for failed, and where it asks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli import demo
from lakeloop.cli.demo import DemoError, Kubectl, address, describe_run, job_over, node_host, training_over

READY = [{"type": "Ready", "status": "True"}]


def job(phase: str, *, generation: int = 1, seen: int = 1, **status: Any) -> Mapping[str, Any]:
    """A TrainingJob with a run in that phase."""
    return {
        "metadata": {"generation": generation},
        "status": {"observedGeneration": seen, "run": {"number": 3, "phase": phase, **status.pop("run", {})}, **status},
    }


@pytest.mark.parametrize(
    ("obj", "over"),
    [
        pytest.param(job("Succeeded", conditions=READY), True, id="succeeded"),
        pytest.param(job("Succeeded", conditions=[]), False, id="not ready yet"),
        pytest.param(job("Succeeded", generation=2, conditions=READY), False, id="status of an older spec"),
        pytest.param(job("Running", conditions=READY), False, id="a later run in progress"),
        pytest.param(job("Failed", generation=2), False, id="an older spec's failure"),
        pytest.param({"metadata": {"generation": 1}}, False, id="not looked at yet"),
    ],
)
def test_training_over(obj: Mapping[str, Any], over: bool) -> None:
    assert training_over(obj) is over


def test_a_failed_run_ends_the_demo_with_its_reason() -> None:
    failure = {"class": "Data", "reason": "ColumnNotFound", "message": "spec.dataset.target: no column 'x'"}
    with pytest.raises(DemoError, match=r"run 3 failed: Data/ColumnNotFound: spec\.dataset\.target: no column 'x'"):
        training_over(job("Failed", run={"failure": failure}))


def test_upload_over() -> None:
    assert job_over({"metadata": {"name": "x"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    assert not job_over({"metadata": {"name": "x"}, "status": {}})
    failed = {"conditions": [{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}]}
    with pytest.raises(DemoError, match="Job x failed: BackoffLimitExceeded"):
        job_over({"metadata": {"name": "x"}, "status": failed})


def test_a_waiting_run_says_for_what() -> None:
    stalled = [{"type": "Stalled", "status": "True", "reason": "SecretNotFound", "message": "no Secret"}]
    assert describe_run(job("Pending", conditions=stalled)) == "run 3 · Pending · SecretNotFound: no Secret"


INTERNAL = {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "172.18.0.2"}]}


@pytest.mark.parametrize(
    ("node", "host"),
    [
        pytest.param({"status": INTERNAL}, "172.18.0.2", id="local node"),
        pytest.param({"spec": {"providerID": "kind://docker/lakeloop/n"}, "status": INTERNAL}, "127.0.0.1", id="kind"),
        pytest.param({"spec": {"providerID": "aws:///i-1"}, "status": INTERNAL}, "172.18.0.2", id="cloud"),
    ],
)
def test_where_a_nodes_ports_are_reached(node: Mapping[str, Any], host: str) -> None:
    assert node_host(node) == host


class Answers(Kubectl):
    """kubectl with answers by its last arguments."""

    def __init__(self, service: Mapping[str, Any]) -> None:
        super().__init__(Path("nowhere"))
        self.service = service

    def __call__(self, *arguments: str) -> str:
        return json.dumps({"items": [{"status": INTERNAL}]} if "nodes" in arguments else self.service)


def test_address_of_a_node_port() -> None:
    assert address(Answers({"spec": {"ports": [{"port": 80, "nodePort": 30007}]}}), "x") == "http://172.18.0.2:30007"


def test_a_service_without_node_port_is_told() -> None:
    with pytest.raises(DemoError, match="has no NodePort"):
        address(Answers({"spec": {"ports": [{"port": 80}]}}), "x")


def test_kubectls_own_words_are_passed_on(tmp_path: Path) -> None:
    fake = tmp_path / "kubectl"
    fake.write_text("#!/bin/sh\necho 'error: no such thing' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(DemoError, match="kubectl get pods: error: no such thing"):
        Kubectl(tmp_path / "config", str(fake))("get", "pods")


def test_by_hand_that_fails_ends_the_demo(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="by_hand"):
        demo.by_hand(tmp_path, [1])


def test_uv_need_not_be_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\necho '[0, 1]'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("UV", str(fake))
    assert demo.by_hand(tmp_path, [1, 2]) == [0, 1]
    monkeypatch.delenv("UV")
    with pytest.raises(DemoError, match="pip install uv"):
        demo.by_hand(tmp_path, [1, 2])
