"""Overlays: merged as Kubernetes merges them, and never weaker than what they are merged onto."""

import copy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakeloop.render.overlay import RESTRICTED_CONTAINER, RESTRICTED_POD, TemplateRefused, merge, with_overlay

FIELD = "spec.spark.driver.template"
POD: dict[str, Any] = {
    "metadata": {"labels": {"lakeloop.io/role": "driver"}},
    "spec": {
        "securityContext": dict(RESTRICTED_POD),
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "containers": [
            {
                "name": "driver",
                "image": "trainer",
                "env": [{"name": "AWS_REGION", "value": "us-east-1"}],
                "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                "securityContext": dict(RESTRICTED_CONTAINER),
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
    },
}


def overlaid(overlay: dict[str, Any]) -> dict[str, Any]:
    return with_overlay(POD, overlay, main="driver", field=FIELD)


def driver(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


# -- what it adds


def test_an_empty_overlay_changes_nothing() -> None:
    assert overlaid({}) == POD


def test_node_selection_and_metadata() -> None:
    pod = overlaid(
        {
            "metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}},
            "spec": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
        }
    )
    assert pod["metadata"] == {"labels": {"lakeloop.io/role": "driver", "team": "a"}, "annotations": {"x": "y"}}
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert pod["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


def test_lists_are_merged_by_their_keys() -> None:
    container = {
        "name": "driver",
        "env": [{"name": "MINE", "value": "1"}],
        "resources": {"limits": {"example.com/gpu": 1}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = overlaid({"spec": {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]}})
    assert [each["name"] for each in pod["spec"]["volumes"]] == ["tmp", "data"]
    assert [each["name"] for each in driver(pod)["env"]] == ["AWS_REGION", "MINE"]
    assert [each["mountPath"] for each in driver(pod)["volumeMounts"]] == ["/tmp", "/data"]
    assert driver(pod)["resources"]["limits"] == {"memory": "1Gi", "example.com/gpu": 1}


def test_a_sidecar_is_restricted_too() -> None:
    pod = overlaid(
        {"spec": {"containers": [{"name": "logs", "image": "x"}], "initContainers": [{"name": "init", "image": "x"}]}}
    )
    assert pod["spec"]["containers"][1]["securityContext"] == RESTRICTED_CONTAINER
    assert pod["spec"]["initContainers"][0]["securityContext"] == RESTRICTED_CONTAINER


def test_another_user_that_is_not_root() -> None:
    pod = overlaid({"spec": {"securityContext": {"runAsUser": 2000, "fsGroup": 2000}}})
    assert pod["spec"]["securityContext"] == {**RESTRICTED_POD, "runAsUser": 2000, "fsGroup": 2000}


def test_what_is_restricted_anyway_may_be_said() -> None:
    context = {"privileged": False, "allowPrivilegeEscalation": False}
    pod = overlaid({"spec": {"containers": [{"name": "driver", "securityContext": context}]}})
    assert driver(pod)["securityContext"] == {**RESTRICTED_CONTAINER, "privileged": False}


def test_a_secret_by_its_name() -> None:
    named = {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    pod = overlaid({"spec": {"containers": [{"name": "driver", "env": [named]}]}})
    assert named in driver(pod)["env"]


# -- what it refuses, and at which path


def container(**parts: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "driver", **parts}]}}


def pod_spec(**parts: Any) -> dict[str, Any]:
    return {"spec": parts}


SECURITY = "spec.containers[0].securityContext"
REFUSED: dict[str, tuple[Any, str]] = {
    "service account": (pod_spec(serviceAccountName="admin"), "spec.serviceAccountName"),
    "token": (pod_spec(automountServiceAccountToken=True), "spec.automountServiceAccountToken"),
    "host network": (pod_spec(hostNetwork=True), "spec.hostNetwork"),
    "host processes": (pod_spec(hostPID=True), "spec.hostPID"),
    "host memory": (pod_spec(hostIPC=True), "spec.hostIPC"),
    "restart policy": (pod_spec(restartPolicy="Always"), "spec.restartPolicy"),
    "host path": (pod_spec(volumes=[{"name": "x", "hostPath": {"path": "/"}}]), "spec.volumes[0].hostPath"),
    "our volume": (pod_spec(volumes=[{"name": "tmp", "emptyDir": {"medium": "Memory"}}]), "spec.volumes[0].name"),
    "pod as root": (pod_spec(securityContext={"runAsUser": 0}), "spec.securityContext.runAsUser"),
    "pod may be root": (pod_spec(securityContext={"runAsNonRoot": False}), "spec.securityContext.runAsNonRoot"),
    "root's group": (
        pod_spec(securityContext={"supplementalGroups": [5, 0]}),
        "spec.securityContext.supplementalGroups",
    ),
    "no seccomp": (
        pod_spec(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        "spec.securityContext.seccompProfile",
    ),
    "sysctls": (pod_spec(securityContext={"sysctls": []}), "spec.securityContext.sysctls"),
    "privileged": (container(securityContext={"privileged": True}), f"{SECURITY}.privileged"),
    "escalation": (
        container(securityContext={"allowPrivilegeEscalation": True}),
        f"{SECURITY}.allowPrivilegeEscalation",
    ),
    "capability": (container(securityContext={"capabilities": {"add": ["NET_ADMIN"]}}), f"{SECURITY}.capabilities"),
    "fewer dropped": (container(securityContext={"capabilities": {"drop": []}}), f"{SECURITY}.capabilities"),
    "writable root": (
        container(securityContext={"readOnlyRootFilesystem": False}),
        f"{SECURITY}.readOnlyRootFilesystem",
    ),
    "privileged sidecar": (
        {"spec": {"containers": [{"name": "x", "securityContext": {"privileged": True}}]}},
        f"{SECURITY}.privileged",
    ),
    "our image": (container(image="other"), "spec.containers[0].image"),
    "our command": (container(command=["sh"]), "spec.containers[0].command"),
    "our variable": (container(env=[{"name": "AWS_REGION", "value": "x"}]), "spec.containers[0].env[0]"),
    "our mount": (container(volumeMounts=[{"name": "x", "mountPath": "/tmp"}]), "spec.containers[0].volumeMounts[0]"),
    "a slip in the name": (
        {"spec": {"containers": [{"name": "drivr", "resources": {}}]}},
        "spec.containers[0].image",
    ),
    "no name": ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name"),
    "our label": ({"metadata": {"labels": {"lakeloop.io/run": "9"}}}, "metadata.labels[lakeloop.io/run]"),
    "another name": ({"metadata": {"name": "x"}}, "metadata.name"),
    "another kind of field": ({"status": {}}, "status"),
    "removal by null": (container(env=None), "spec.containers[0].env"),
    "removal by directive": (container(**{"$patch": "delete"}), "spec.containers[0].$patch"),
    "not an object": ({"spec": []}, "spec"),
    "not a list": (pod_spec(volumes={}), "spec.volumes"),
    "text for a list": (pod_spec(topologySpreadConstraints="x"), "spec.topologySpreadConstraints"),
    "text in a list": (pod_spec(topologySpreadConstraints=["x"]), "spec.topologySpreadConstraints[0]"),
    "text for tolerations": (pod_spec(tolerations="x"), "spec.tolerations"),
    "port of the node": (
        container(ports=[{"containerPort": 80, "hostPort": 80}]),
        "spec.containers[0].ports[0].hostPort",
    ),
    "port of the node for a sidecar": (
        {"spec": {"initContainers": [{"name": "x", "ports": [{"containerPort": 80, "hostPort": 80}]}]}},
        "spec.initContainers[0].ports[0].hostPort",
    ),
    "secret as a value": (container(env=[{"name": "DB_PASSWORD", "value": "x"}]), "spec.containers[0].env[0].value"),
    "secret as a sidecar's value": (
        {"spec": {"containers": [{"name": "x", "env": [{"name": "apiKey", "value": "x"}]}]}},
        "spec.containers[0].env[0].value",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    overlay, path = REFUSED[name]
    with pytest.raises(TemplateRefused) as refused:
        overlaid(overlay)
    assert refused.value.path == f"{FIELD}.{path}"
    assert refused.value.message


# -- for any overlay

SCALARS = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["a", "RuntimeDefault", "ALL", "tmp", "driver"]))
CONTEXTS = st.dictionaries(
    st.sampled_from([*RESTRICTED_CONTAINER, *RESTRICTED_POD, "privileged", "procMount"]),
    st.one_of(
        SCALARS,
        st.fixed_dictionaries({"type": SCALARS}),
        st.fixed_dictionaries({"drop": st.lists(SCALARS, max_size=1)}),
        st.fixed_dictionaries({"add": st.lists(SCALARS, max_size=1)}),
    ),
)
CONTAINERS = st.lists(
    st.builds(
        lambda parts, own: parts | ({"name": "driver"} if own else {"name": "sidecar", "image": "x"}),
        st.fixed_dictionaries(
            {},
            optional={
                "securityContext": CONTEXTS,
                "env": st.lists(
                    st.fixed_dictionaries({"name": st.sampled_from(["A", "B"]), "value": SCALARS}), max_size=2
                ),
                "resources": st.dictionaries(st.sampled_from(["limits", "requests"]), st.just({"cpu": "1"})),
            },
        ),
        st.booleans(),
    ),
    max_size=2,
)
OVERLAYS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({"labels": st.dictionaries(st.sampled_from(["a", "b"]), st.just("c"))}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "securityContext": CONTEXTS,
                "containers": CONTAINERS,
                "initContainers": CONTAINERS,
                "nodeSelector": st.dictionaries(st.sampled_from(["x", "y"]), st.just("z")),
                "tolerations": st.lists(st.fixed_dictionaries({"key": SCALARS}), max_size=2),
                "volumes": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["v", "w"])}), max_size=2),
            },
        ),
    },
)


@given(OVERLAYS)
@example({"spec": {"securityContext": {"runAsNonRoot": 1}}})
def test_whatever_is_taken_stays_restricted(overlay: dict[str, Any]) -> None:
    before = copy.deepcopy(POD)
    try:
        pod = overlaid(overlay)
    except TemplateRefused:
        return
    finally:
        assert before == POD, "the rendered pod is not changed in place"
    context = pod["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["runAsUser"] not in (0, False)
    for each in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
        inner = each["securityContext"]
        assert {key: inner[key] for key in RESTRICTED_CONTAINER} == RESTRICTED_CONTAINER
        assert not inner.get("privileged")
        assert inner.get("runAsUser", 1) not in (0, False)


@given(OVERLAYS)
def test_merging_twice_is_merging_once(overlay: dict[str, Any]) -> None:
    once = merge(POD, overlay)
    assert merge(once, overlay) == once


@given(OVERLAYS)
def test_nothing_that_was_there_is_lost(overlay: dict[str, Any]) -> None:
    merged = merge(POD, overlay)
    assert {each["name"] for each in merged["spec"]["containers"]} >= {"driver"}
    assert POD["metadata"]["labels"].items() <= merged["metadata"]["labels"].items()
