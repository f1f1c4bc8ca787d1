"""What every workload of both charts keeps to, whatever the values."""

import re
from typing import Any

import pytest
from charts.rendering import Object, one, pod_templates, render

USERS = [{"name": "team-a", "namespace": "team-a"}]
VARIANTS: dict[str, list[Object]] = {
    "operator": render("lakeloop"),
    "operator-local": render("lakeloop", "values-local.yaml"),
    "operator-namespaced": render("lakeloop", watchNamespaces=["team-a", "team-b"], replicas=2),
    "operator-ca": render("lakeloop", storage={"ca": {"configMap": "store-ca"}}),
    "platform": render("lakeloop-platform"),
    "platform-local": render("lakeloop-platform", "values-local.yaml", minio={"users": USERS}),
    "platform-own-store": render(
        "lakeloop-platform", minio={"enabled": False}, externalStorage={"existingSecret": "store"}
    ),
    "platform-own-database": render(
        "lakeloop-platform", postgresql={"enabled": False}, mlflow={"backendStore": {"existingSecret": "database"}}
    ),
}
PODS = [
    pytest.param(template, id=f"{variant}:{name}")
    for variant, objects in VARIANTS.items()
    for name, template in pod_templates(objects)
]
OBJECTS = [
    pytest.param(each, id=f"{variant}:{each['kind']}/{each['metadata']['name']}")
    for variant, objects in VARIANTS.items()
    for each in objects
    if each["kind"] != "CustomResourceDefinition"
]
SERVERS = [
    pytest.param(template["spec"]["containers"][0], id=f"{variant}:{name}")
    for variant, objects in VARIANTS.items()
    for name, template in pod_templates(objects)
    if name.startswith(("Deployment/", "StatefulSet/"))
]


def containers(template: Any) -> list[Any]:
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def test_the_variants_have_the_workloads() -> None:
    """The tests below look at something."""
    assert [name for name, _ in pod_templates(VARIANTS["operator"])] == [
        "Deployment/lakeloop-operator",
        "Pod/lakeloop-operator-test",
        "Job/lakeloop-cleanup",
    ]
    assert [name for name, _ in pod_templates(VARIANTS["platform"])] == [
        "Deployment/mlflow",
        "StatefulSet/minio",
        "StatefulSet/postgresql",
        "Pod/lakeloop-platform-test",
        "Job/minio-setup",
    ]


@pytest.mark.parametrize("template", PODS)
def test_pods_are_restricted(template: Any) -> None:
    """What the restricted Pod Security level asks for, and a read-only root and our uid beyond it."""
    spec = template["spec"]
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert (security["runAsUser"], security["runAsGroup"]) == (10001, 10001)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "configMap", "secret", "projected", "persistentVolumeClaim"}
    for container in containers(template):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("template", PODS)
def test_pods_say_what_they_need(template: Any) -> None:
    """Requests small enough for two cores, a limit on memory, none on the CPU."""
    for container in containers(template):
        resources = container["resources"]
        assert re.fullmatch(r"(50|100)m", resources["requests"]["cpu"])
        assert resources["requests"]["memory"].endswith("Mi")
        assert resources["limits"].keys() == {"memory"}


@pytest.mark.parametrize("template", PODS)
def test_no_secret_outside_of_secrets(template: Any) -> None:
    """Passwords and keys come by reference, and are never part of a command."""
    for container in containers(template):
        words = " ".join([*container.get("command", []), *map(str, container.get("args", []))])
        assert not re.search(r"\$\((\w*(PASSWORD|SECRET|KEY)\w*)\)|://[^/\s]+:[^/\s]+@", words)
        for variable in container.get("env", []):
            if re.search(r"PASSWORD$|SECRET|ACCESS_KEY|ENCRYPTION_KEY", variable["name"]) and not variable[
                "name"
            ].endswith("_FILE"):
                assert "value" not in variable, variable["name"]


@pytest.mark.parametrize("template", PODS)
def test_tokens_only_where_the_api_is_used(template: Any) -> None:
    """Only the operator and its clean-up talk to the API server."""
    token = template["spec"].get("automountServiceAccountToken", True)
    assert token is (template["spec"].get("serviceAccountName") in ("lakeloop-operator", "lakeloop-cleanup"))


@pytest.mark.parametrize("container", SERVERS)
def test_servers_are_probed(container: Any) -> None:
    """A slow start is not a dead process, and a busy one is not either."""
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert container["livenessProbe"].get("failureThreshold", 3) >= 3


@pytest.mark.parametrize("obj", OBJECTS)
def test_recommended_labels(obj: Object) -> None:
    """Every object says what it is and where it comes from."""
    labels = obj["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] in (
        ["lakeloop", "lakeloop-platform", "minio", "minio-setup", "mlflow", "mlflow-test", "postgresql"]
    )
    assert labels["app.kubernetes.io/instance"] in ("lakeloop", "lakeloop-platform")
    assert labels["app.kubernetes.io/part-of"] == "lakeloop"
    assert labels["app.kubernetes.io/managed-by"] == "Helm"
    assert {"app.kubernetes.io/component", "app.kubernetes.io/version", "helm.sh/chart"} <= labels.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_services_and_selectors_find_their_pods(variant: str) -> None:
    """A Service, budget, policy or monitor that selects nothing is a mistake; and no selector finds two workloads."""
    objects = VARIANTS[variant]
    pods = [template["metadata"]["labels"] for _, template in pod_templates(objects)]
    for obj in objects:
        spec = obj.get("spec", {})
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
            "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
        }.get(obj["kind"])
        if selector:
            wanted = selector(spec).items()
            assert sum(wanted <= labels.items() for labels in pods) == 1, (obj["kind"], obj["metadata"]["name"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_named_ports_exist(variant: str) -> None:
    """Services and probes name ports that the container has."""
    objects = VARIANTS[variant]
    for obj in objects:
        if obj["kind"] == "Service":
            (ports,) = [
                {port["name"] for container in template["spec"]["containers"] for port in container.get("ports", [])}
                for _, template in pod_templates(objects)
                if obj["spec"]["selector"].items() <= template["metadata"]["labels"].items()
            ]
            assert {port["targetPort"] for port in obj["spec"]["ports"]} <= ports


@pytest.mark.parametrize(
    ("variant", "name", "ports"),
    [
        ("platform", "minio", [9000, 9001]),
        ("platform", "mlflow", [5000]),
        ("platform", "postgresql", [5432]),
        ("operator", "lakeloop-operator", [8080]),
    ],
)
def test_fixed_services(variant: str, name: str, ports: list[int]) -> None:
    """Names and ports that other parts rely on; the API comes first."""
    spec = one(VARIANTS[variant], "Service", name)["spec"]
    assert [port["port"] for port in spec["ports"]] == ports
    assert spec["type"] == "ClusterIP"
    assert all("nodePort" not in port for port in spec["ports"])


def test_local_node_ports() -> None:
    """The first port of each is reached on the node."""
    objects = VARIANTS["platform-local"]
    for name, port in (("minio", 30900), ("mlflow", 30500)):
        spec = one(objects, "Service", name)["spec"]
        assert (spec["type"], spec["ports"][0]["nodePort"]) == ("NodePort", port)
