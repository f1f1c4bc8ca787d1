"""When a candidate is rejected, waited for, or given more time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakeloop.domain.deployment.observed import Death, ServerPod, Servers
from lakeloop.domain.deployment.verdict import judge

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def servers(*pods: ServerPod, refused: str | None = None) -> Servers:
    return Servers(live={}, revision="r", version=2, replicas=len(pods), pods=pods, refused=refused)


def dead(reason: str, restarts: int, **parts: Any) -> ServerPod:
    return ServerPod("p", "r", ready=False, death=Death(reason, "why", restarts, **parts))


def starting(**parts: Any) -> ServerPod:
    return ServerPod("p", "r", ready=False, **parts)


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        pytest.param(dead("DigestMismatch", 0), "DigestMismatch", id="digest-at-once"),
        pytest.param(dead("ModelNotFound", 0), "ModelNotFound", id="no-model-at-once"),
        pytest.param(dead("EnvironmentMismatch", 0), "EnvironmentMismatch", id="environment-at-once"),
        pytest.param(dead("SignatureMissing", 0), "SignatureMissing", id="signature-at-once"),
        pytest.param(dead("LoadFailed", 0), None, id="load-failed-gets-another-try"),
        pytest.param(dead("LoadFailed", 1), "LoadFailed", id="load-failed-twice"),
        pytest.param(dead("WarmupFailed", 1), "WarmupFailed", id="warm-up-failed-twice"),
        pytest.param(dead("", 2), None, id="silent-deaths-get-tries"),
        pytest.param(dead("", 3), "CrashLoop", id="silent-deaths"),
        pytest.param(dead("", 3, out_of_memory=True), "OutOfMemory", id="out-of-memory"),
        pytest.param(dead("CredentialsRefused", 99), None, id="credentials-are-waited-for"),
        pytest.param(dead("StorageUnavailable", 99), None, id="storage-is-waited-for"),
        pytest.param(
            ServerPod("p", "r", ready=True, death=Death("LoadFailed", "long ago", 5)), None, id="ready-in-the-end"
        ),
        pytest.param(starting(), None, id="starting"),
    ],
)
def test_rejection(pod: ServerPod, reason: str | None) -> None:
    verdict = judge(servers(pod), NOW, 600, NOW)
    assert (verdict.rejection and verdict.rejection.reason) == reason


@pytest.mark.parametrize(
    ("reason", "path"),
    [("CredentialsRefused", "spec.storage.secretRef"), ("StorageUnavailable", "spec.storage.endpoint")],
)
def test_what_heals_names_its_field_and_has_no_deadline(reason: str, path: str) -> None:
    verdict = judge(servers(dead(reason, 9)), NOW, 600, NOW + timedelta(days=1))
    assert verdict.rejection is None
    assert verdict.waiting is not None
    assert (verdict.waiting.path, verdict.waiting.reason, verdict.waiting.message) == (path, reason, "why")


def test_one_bad_server_of_several_is_enough() -> None:
    good = ServerPod("a", "r", ready=True, ready_since=NOW)
    verdict = judge(servers(good, dead("CredentialsRefused", 1), dead("DigestMismatch", 0)), NOW, 600, NOW)
    assert verdict.rejection is not None
    assert verdict.rejection.reason == "DigestMismatch"


def test_each_server_that_becomes_ready_is_progress() -> None:
    ready = ServerPod("a", "r", ready=True, ready_since=NOW + timedelta(seconds=500))
    later = NOW + timedelta(seconds=900)
    assert judge(servers(ready, starting()), NOW, 600, later).seconds_left == 200
    late = judge(servers(starting()), NOW, 600, later)
    assert late.rejection is not None
    assert late.rejection.reason == "ProgressDeadlineExceeded"


@pytest.mark.parametrize(
    ("group", "told"),
    [
        pytest.param(servers(refused="exceeded quota"), "exceeded quota", id="quota"),
        pytest.param(servers(starting(waiting="Unschedulable: 0/1 nodes")), "Unschedulable: 0/1 nodes", id="no-room"),
        pytest.param(servers(dead("LoadFailed", 0)), "why", id="last-words"),
    ],
)
def test_deadline_says_what_was_in_the_way(group: Servers, told: str) -> None:
    rejection = judge(group, NOW, 600, NOW + timedelta(seconds=601)).rejection
    assert rejection is not None
    assert rejection.message.endswith(f": {told}")


def test_no_servers_at_all() -> None:
    assert judge(None, NOW, 600, NOW).seconds_left == 600
    rejection = judge(None, NOW, 600, NOW + timedelta(seconds=601)).rejection
    assert rejection is not None
    assert rejection.message == ("no server became ready within 600 s (spec.strategy.progressDeadlineSeconds)")
