"""The committed files are those of the types."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lakeloop.api.v1alpha1.implemented import NOT_YET
from lakeloop.codegen.__main__ import main
from lakeloop.codegen.crds import MAX_BYTES, RESOURCES, Resource, crd
from lakeloop.codegen.outputs import outputs, stale, write

ROOT = Path(__file__).parents[3]
EACH = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)


@cache
def generated() -> dict[str, str]:
    return outputs()


def schemas(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema in a schema, with its path."""
    yield path, value
    for name, each in value.get("properties", {}).items():
        yield from schemas(each, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in value:
            yield from schemas(value[key], f"{path}[]")


def spec_schema(resource: Resource) -> dict[str, Any]:
    version: dict[str, Any] = crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return version


def test_committed_files_are_up_to_date() -> None:
    assert stale(ROOT, generated()) == [], "run `make generate` and commit what it writes"


def test_output_is_the_same_every_time() -> None:
    assert outputs() == generated()


def test_check_names_what_is_out_of_date(tmp_path: Path) -> None:
    write(tmp_path, generated())
    assert CliRunner().invoke(main, ["--check", "--root", str(tmp_path)]).exit_code == 0
    (tmp_path / "crds/lakeloop.io_trainingjobs.yaml").write_text("edited by hand")
    (tmp_path / "docs/reference/not-yet.md").unlink()
    checked = CliRunner().invoke(main, ["--check", "--root", str(tmp_path)])
    assert checked.exit_code == 1
    assert "crds/lakeloop.io_trainingjobs.yaml is not what the types say" in checked.output
    assert "docs/reference/not-yet.md is not" in checked.output
    assert "modeldeployments" not in checked.output
    written = CliRunner().invoke(main, ["--root", str(tmp_path)])
    assert written.output.splitlines() == [
        "wrote crds/lakeloop.io_trainingjobs.yaml",
        "wrote docs/reference/not-yet.md",
    ]
    assert stale(tmp_path, generated()) == []


@EACH
def test_fits_into_the_annotation_of_a_client_side_apply(resource: Resource) -> None:
    assert len(generated()[f"crds/lakeloop.io_{resource.plural}.yaml"].encode()) < MAX_BYTES


@EACH
def test_spec_has_no_defaults_and_bounded_lists_maps_and_texts(resource: Resource) -> None:
    loose = []
    for path, schema in schemas(spec_schema(resource)):
        assert "default" not in schema, path
        kind = schema.get("type")
        free = schema.get("x-kubernetes-preserve-unknown-fields") or "enum" in schema or "format" in schema
        if kind == "array" and not {"maxItems", "x-kubernetes-list-type"} <= schema.keys():
            loose.append(path)
        if kind == "string" and not free and "maxLength" not in schema:
            loose.append(path)
        if "additionalProperties" in schema and "maxProperties" not in schema:
            loose.append(path)
    assert loose == []


@EACH
def test_rules_say_what_to_write(resource: Resource) -> None:
    rules = [
        rule for _, schema in schemas(spec_schema(resource)) for rule in schema.get("x-kubernetes-validations", [])
    ]
    assert rules
    assert [rule for rule in rules if len(rule.get("message", "")) < 20] == []


@EACH
def test_chart_keeps_the_crd_when_it_is_uninstalled(resource: Resource) -> None:
    files = generated()
    name = f"lakeloop.io_{resource.plural}.yaml"
    kept = yaml.safe_load(files[f"charts/lakeloop/files/crds/{name}"])
    assert kept["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert kept == yaml.safe_load(files[f"crds/{name}"])


@EACH
def test_fields_that_are_not_acted_on_exist(resource: Resource) -> None:
    known = {path.removeprefix(".").replace("[]", "[*]") for path, _ in schemas(spec_schema(resource))}
    assert {entry.path for entry in NOT_YET[resource.kind]} - known == set()  # type: ignore[index]


@EACH
def test_reference_has_every_field_with_its_meaning(resource: Resource) -> None:
    page = generated()[f"docs/reference/{resource.kind.lower()}.md"]
    assert "| `replicas` | integer | `1` |" in page or resource.kind != "ModelDeployment"
    for path, schema in schemas(spec_schema(resource)):
        if path and not path.endswith("[]"):
            name = path.rpartition(".")[2]
            assert f"| `{name}` |" in page, path
            assert schema.get("description"), path


@pytest.mark.parametrize(
    "row",
    [
        "| `testFraction` | number | `0.2` |",
        "| `mode` | `Append` \\| `Overwrite` \\| `Merge` | `Append` |",
        "What must be true of the rows. (at most 32 items) |",
        "| `name` | string | **required** |",
        "| `coreRequest` | CPU quantity | `250m` |",
        "| `memoryOverhead` | memory quantity | `400Mi` |",
        "| `infrastructure` | integer | `5` |",
        "| `files` | `New` \\| `All` | `New`; `All` where mode is `Overwrite` |",
        "| `tailBytes` | integer | `10485760` |",
    ],
)
def test_reference_row(row: str) -> None:
    assert row in generated()["docs/reference/trainingjob.md"]
