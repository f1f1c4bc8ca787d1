"""What the API server takes, keeps and shows."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubectl import Kubectl, Refused

from builders import DEPLOYMENT_SPEC, TRAINING_SPEC
from lakeloop.api.v1alpha1.modeldeployment import parse_model_deployment
from lakeloop.api.v1alpha1.spec_hash import training_spec_hash
from lakeloop.api.v1alpha1.trainingjob import parse_training_job

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "tests/unit/api/examples").glob("*.yaml"))
SAMPLES = sorted((ROOT / "samples").glob("*/*.yaml"))


def load(path: Path) -> dict[str, Any]:
    obj: dict[str, Any] = yaml.safe_load(path.read_text())
    return obj


def minimal(kind: str, name: str = "a", **spec: Any) -> dict[str, Any]:
    base = TRAINING_SPEC if kind == "TrainingJob" else DEPLOYMENT_SPEC
    return {
        "apiVersion": "lakeloop.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {**base, **spec},
    }


def set_status(kubectl: Kubectl, kind: str, name: str, status: dict[str, Any]) -> None:
    kubectl.patch_status(kind, name, status)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_stored_as_it_was_written(kubectl: Kubectl, path: Path) -> None:
    """Nothing is pruned and nothing is filled in: GitOps sees no drift, and an unset field stays unset."""
    written = load(path)
    stored = kubectl.apply({k: v for k, v in written.items() if k != "status"})
    assert stored["spec"] == written["spec"]
    parse = parse_training_job if written["kind"] == "TrainingJob" else parse_model_deployment
    assert parse(stored, strict=True).metadata.namespace == kubectl.namespace
    if written["kind"] == "TrainingJob":
        assert training_spec_hash(stored["spec"]) == training_spec_hash(written["spec"])


@pytest.mark.parametrize("path", [path for path in EXAMPLES if "status" in load(path)], ids=lambda path: path.stem)
def test_status_is_stored_as_it_was_written(kubectl: Kubectl, path: Path) -> None:
    written = load(path)
    kubectl.apply({k: v for k, v in written.items() if k != "status"})
    set_status(kubectl, written["kind"], written["metadata"]["name"], written["status"])
    assert kubectl.get(written["kind"], written["metadata"]["name"])["status"] == written["status"]


def test_a_search_over_spark_ml_is_taken(kubectl: Kubectl) -> None:
    steps = [{"class": "pyspark.ml.classification.LogisticRegression"}]
    search = {"algorithm": "Random", "parameters": [{"name": "0.regParam", "min": 0.001, "max": 1}]}
    written = minimal("TrainingJob", estimator={"library": "spark", "steps": steps}, search=search)
    stored = kubectl.apply(written)
    assert stored["spec"]["search"]["parameters"][0]["name"] == "0.regParam"


def test_samples_are_taken(admin: Kubectl) -> None:
    """The resources in samples/, as they are, in one file as a user may have them."""
    admin.create_namespace("lakeloop-demo")
    ours = [
        document
        for path in SAMPLES
        for document in yaml.safe_load_all(path.read_text())
        if document and document["apiVersion"].startswith("lakeloop.io/")
    ]
    assert {document["kind"] for document in ours} == {"TrainingJob", "ModelDeployment"}
    assert {document["metadata"]["namespace"] for document in ours} == {"lakeloop-demo"}
    together = {"apiVersion": "v1", "kind": "List", "items": ours}
    admin("apply", "-f", "-", "--namespace=lakeloop-demo", stdin=json.dumps(together))


def test_longest_name_is_taken(kubectl: Kubectl) -> None:
    assert kubectl.apply(minimal("TrainingJob", "a" * 40))["metadata"]["name"] == "a" * 40


def test_crds_are_established_and_structural(admin: Kubectl) -> None:
    for name in ("trainingjobs.lakeloop.io", "modeldeployments.lakeloop.io"):
        conditions = {c["type"]: c["status"] for c in admin.get("crd", name)["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_client_side_apply_of_the_crds_again_changes_nothing(admin: Kubectl) -> None:
    assert "unchanged" in admin("apply", "-f", str(ROOT / "crds"))


def test_explain_knows_the_fields(admin: Kubectl) -> None:
    told = " ".join(admin("explain", "tj.spec.inputs.ingest.files").split())
    assert "those that this job has not ingested yet" in told
    assert "ENUM: New All" in told


def test_short_names_and_categories(kubectl: Kubectl) -> None:
    kubectl.apply(minimal("TrainingJob", "both"))
    kubectl.apply(minimal("ModelDeployment", "both"))
    both = {"modeldeployment.lakeloop.io/both", "trainingjob.lakeloop.io/both"}
    assert set(kubectl("get", "lakeloop", "-o", "name").split()) == both
    assert both <= set(kubectl("get", "all", "-o", "name").split())
    assert kubectl("get", "tj", "both", "-o", "name") == kubectl("get", "trainingjobs", "both", "-o", "name")
    assert kubectl("get", "md", "both", "-o", "name") == kubectl("get", "modeldeployments", "both", "-o", "name")


@pytest.mark.parametrize(
    ("example", "header", "row", "wide_header", "wide_row"),
    [
        pytest.param(
            "trainingjob",
            ["NAME", "RUN", "PHASE", "TABLE", "METRIC", "MODEL", "AGE"],
            ["churn", "7", "Running", "customers@12", "roc_auc 0.91", "churn/5"],
            ["MLFLOW-RUN", "REASON"],
            ["0a1b", "RunSucceeded"],
            id="tj",
        ),
        pytest.param(
            "modeldeployment",
            ["NAME", "MODEL", "STABLE", "CANDIDATE", "WEIGHT", "READY", "URL", "AGE"],
            ["churn", "churn", "4", "5", "10", "2", "http://models.example/models/team-a/churn"],
            ["REASON"],
            ["AliasMoved"],
            id="md",
        ),
    ],
)
def test_printed_columns(
    kubectl: Kubectl,
    example: str,
    header: list[str],
    row: list[str],
    wide_header: list[str],
    wide_row: list[str],
) -> None:
    written = load(ROOT / f"tests/unit/api/examples/{example}.yaml")
    status = written.pop("status")
    status["conditions"] = status["conditions"] or [
        {"type": "Ready", "status": "True", "reason": "AliasMoved", "lastTransitionTime": "2026-11-24T08:00:00Z"}
    ]
    kubectl.apply(written)
    set_status(kubectl, written["kind"], "churn", status)

    def cells(line: str) -> list[str]:
        return [cell for cell in line.split("  ") if cell.strip()]

    heads, values = (list(map(str.strip, cells(line))) for line in kubectl("get", example, "churn").splitlines())
    assert heads == header
    assert values[:-1] == row
    heads, values = (
        list(map(str.strip, cells(line))) for line in kubectl("get", example, "churn", "-o", "wide").splitlines()
    )
    assert heads == [*header, *wide_header]
    assert values[-len(wide_row) :] == wide_row


def test_status_is_a_subresource(kubectl: Kubectl) -> None:
    stored = kubectl.apply(minimal("TrainingJob") | {"status": {"observedGeneration": 9}})
    assert "status" not in stored
    set_status(kubectl, "tj", "a", {"observedGeneration": 1})
    assert kubectl.get("tj", "a")["metadata"]["generation"] == 1


def test_wait_understands_the_conditions(kubectl: Kubectl) -> None:
    kubectl.apply(minimal("TrainingJob"))
    ready = {"type": "Ready", "status": "True", "reason": "RunSucceeded", "message": "", "observedGeneration": 1}
    set_status(kubectl, "tj", "a", {"conditions": [ready | {"lastTransitionTime": "2026-11-24T08:00:00Z"}]})
    assert "condition met" in kubectl("wait", "tj/a", "--for=condition=Ready", "--timeout=5s")


def test_scale(kubectl: Kubectl) -> None:
    """`kubectl scale` works whether or not replicas were written; nobody but the user writes them."""
    kubectl.apply(minimal("ModelDeployment"))
    assert "replicas" not in kubectl.get("md", "a")["spec"]
    kubectl("scale", "md/a", "--replicas=3")
    assert kubectl.get("md", "a")["spec"]["replicas"] == 3
    set_status(kubectl, "md", "a", {"replicas": 2, "selector": "lakeloop.io/model-deployment=a"})
    path = f"/apis/lakeloop.io/v1alpha1/namespaces/{kubectl.namespace}/modeldeployments/a/scale"
    scale = json.loads(kubectl("get", "--raw", path))
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "lakeloop.io/model-deployment=a"}
    with pytest.raises(Refused, match="replicas"):
        kubectl("scale", "md/a", "--replicas=-1")


def test_server_side_apply_merges_inputs_by_name(kubectl: Kubectl) -> None:
    """Two owners of two inputs do not overwrite each other."""
    query = {"dataset": {"target": "t", "query": "SELECT 1"}}
    first = minimal("TrainingJob", inputs=[{"name": "a", "uri": "s3a://lake/a"}], **query)
    second = minimal("TrainingJob", inputs=[{"name": "b", "uri": "s3a://lake/b"}], **query)
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=json.dumps(first))
    kubectl("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=json.dumps(second))
    assert [each["name"] for each in kubectl.get("tj", "a")["spec"]["inputs"]] == ["a", "b"]


def test_numbers_are_stored_without_their_point(kubectl: Kubectl) -> None:
    """Why a float that matters is written `{float: "1.0"}`: JSON numbers lose it on the way."""
    params = {"whole": 1.0, "float": {"float": "1.0"}, "half": 0.5}
    stored = kubectl.apply(minimal("TrainingJob", estimator={"steps": [{"class": "a.B", "params": params}]}))
    kept = stored["spec"]["estimator"]["steps"][0]["params"]
    assert kept == {"whole": 1, "float": {"float": "1.0"}, "half": 0.5}
    assert isinstance(kept["whole"], int)
