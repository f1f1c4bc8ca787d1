"""The types hold all that the contract's examples write, and give it back unchanged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import model_deployment_dict, training_job, training_job_dict
from lakeloop.api.v1alpha1.base import ApiModel, InvalidObject
from lakeloop.api.v1alpha1.modeldeployment import ModelDeployment, ModelDeploymentSpec, parse_model_deployment
from lakeloop.api.v1alpha1.trainingjob import TrainingJob, TrainingJobSpec, parse_training_job

EXAMPLES = Path(__file__).parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))


def example(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return loaded


def models(model: type[ApiModel]) -> set[type[ApiModel]]:
    """The model and all that it is made of."""
    found: set[type[ApiModel]] = set()
    waiting: list[Any] = [model]
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, ApiModel):
            if each not in found:
                found.add(each)
                waiting += [field.annotation for field in each.model_fields.values()]
        else:
            waiting += getattr(each, "__args__", ())
    return found


def quantities_as_text(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: quantities_as_text(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [quantities_as_text(item) for item in value]
    return str(value) if key == "cpu" else value


def parse(obj: Mapping[str, Any]) -> TrainingJob | ModelDeployment:
    if obj["kind"] == "TrainingJob":
        return parse_training_job(obj, strict=True)
    return parse_model_deployment(obj, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_example_round_trips(name: str) -> None:
    written = example(name)
    parsed = parse(written)
    assert parsed.spec.wire() == quantities_as_text(written["spec"])
    assert parsed.status.wire() == written.get("status", {})


def test_examples_write_every_field_of_both_specs() -> None:
    """A field that no example writes is a field that no test of the CRDs has seen."""
    seen: set[tuple[type[ApiModel], str]] = set()

    def visit(value: Any) -> None:
        if isinstance(value, ApiModel):
            written = {name: getattr(value, name) for name in type(value).model_fields}
            seen.update((type(value), name) for name, each in written.items() if each is not None)
            for each in written.values():
                visit(each)
        elif isinstance(value, tuple):
            for each in value:
                visit(each)

    for name in NAMES:
        visit(parse(example(name)).spec)
    declared = models(TrainingJobSpec) | models(ModelDeploymentSpec)
    assert {(model, name) for model in declared for name in model.model_fields} - seen == set()


@pytest.mark.parametrize("kind", [TrainingJob, ModelDeployment])
def test_every_field_says_what_it_is(kind: type[ApiModel]) -> None:
    silent = [
        f"{model.__name__}.{name}"
        for model in models(kind) - {TrainingJob, ModelDeployment}
        for name, field in model.model_fields.items()
        if model.__name__ != "ObjectMeta" and not field.description
    ]
    assert silent == []


@pytest.mark.parametrize("kind", [TrainingJob, ModelDeployment])
def test_what_was_not_written_is_none(kind: type[ApiModel]) -> None:
    spec = kind.model_fields["spec"].annotation
    assert spec is not None
    defaults = {
        f"{model.__name__}.{name}": field.default
        for model in models(spec)
        for name, field in model.model_fields.items()
        if not field.is_required() and field.default is not None
    }
    assert defaults == {}


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        pytest.param(training_job_dict(inputs=[{"name": "a", "version": -1}]), "spec.inputs[0].version", id="negative"),
        pytest.param(training_job_dict(inputs=[{"uri": "s3a://lake/a"}]), "spec.inputs[0].name", id="no name"),
        pytest.param(training_job_dict(inputs=[]), "spec.inputs", id="no inputs"),
        pytest.param(training_job_dict(dataset={"target": 3}), "spec.dataset.target", id="wrong type"),
        pytest.param(
            training_job_dict(estimator={"steps": [{"class": "LogisticRegression"}]}),
            "spec.estimator.steps[0].class",
            id="class without module",
        ),
        pytest.param({"kind": "TrainingJob"}, "metadata", id="no metadata"),
        pytest.param(training_job_dict(status={"run": {"number": 0}}), "status.run.number", id="bad status"),
    ],
)
def test_wrong_object_names_the_field(obj: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        parse_training_job(obj)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "endpoint",
    ["http://:9000", "http://a_b:9000", "http://a..b", "http://x:99999", "http://x:0", "http://[::1", "ftp://x"],
)
def test_an_endpoint_that_nobody_can_be_asked_at(endpoint: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        parse_model_deployment(model_deployment_dict(storage={"endpoint": endpoint}))
    assert caught.value.path == "spec.storage.endpoint"


def test_no_password_in_an_endpoint() -> None:
    with pytest.raises(InvalidObject, match=r"spec\.storage\.endpoint"):
        parse_training_job(training_job_dict(storage={"endpoint": "http://me:hunter2@minio:9000"}))


@pytest.mark.parametrize(
    "endpoint", ["http://minio.lakeloop-platform.svc:9000", "https://x.example/storage/v1/s3", "http://[::1]:9000/"]
)
def test_endpoints(endpoint: str) -> None:
    job = parse_training_job(training_job_dict(storage={"endpoint": endpoint}))
    assert job.spec.storage is not None
    assert job.spec.storage.endpoint == endpoint


def test_fields_of_a_newer_crd_are_ignored_unless_strict() -> None:
    newer = model_deployment_dict(brandNew={"a": 1}, server={"workers": 2, "alsoNew": 1})
    parsed = parse_model_deployment(newer)
    assert parsed.spec.server is not None
    assert parsed.spec.server.workers == 2
    with pytest.raises(InvalidObject, match=r"spec\.(brandNew|server\.alsoNew)"):
        parse_model_deployment(newer, strict=True)


def test_metadata_of_the_api_server_is_taken_strictly_too() -> None:
    obj = training_job_dict(metadata={"managedFields": [], "deletionTimestamp": "2026-11-24T08:00:00Z"})
    assert parse_training_job(obj, strict=True).metadata.deletion_timestamp == "2026-11-24T08:00:00Z"


def test_snake_case_is_not_wire_form() -> None:
    with pytest.raises(InvalidObject, match="run_policy"):
        training_job(run_policy={})


def test_parsed_objects_cannot_be_changed() -> None:
    job = training_job()
    with pytest.raises(ValueError, match="frozen"):
        job.spec.suspend = True  # type: ignore[misc]


@pytest.mark.parametrize("depth", [100, 9_000])
def test_what_is_nested_too_deep_is_refused_by_its_field(depth: int) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = {"a": nested}
    steps = [{"class": "sklearn.linear_model.Ridge", "params": {"x": nested}}]
    with pytest.raises(InvalidObject) as caught:
        parse_training_job(training_job_dict(estimator={"steps": steps}))
    assert str(caught.value) == "spec.estimator.steps[0].params.x: is nested more than 64 levels deep: write it flatter"
    with pytest.raises(InvalidObject, match=r"spec\.server\.template"):
        parse_model_deployment(model_deployment_dict(server={"template": nested}))
