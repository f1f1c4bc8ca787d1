"""Values of the charts: from a profile, images, addresses, files and settings."""

from typing import Any

import pytest

from lakeloop.cli.errors import CliError
from lakeloop.cli.values import (
    ChartValues,
    Profile,
    combine,
    from_file,
    from_images,
    from_profile,
    from_settings,
    from_workloads,
    image,
    merge,
)

IMAGES = {
    name: f"localhost/lakeloop/{name}:{name[:3]}"
    for name in ("minio", "postgres", "mlflow", "operator", "trainer", "model-server")
}


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": None}, {"a": None}),
    ],
)
def test_merge(base: dict[str, Any], over: dict[str, Any], expected: dict[str, Any]) -> None:
    before = str(base)
    assert merge(base, over) == expected
    assert str(base) == before


@pytest.mark.parametrize(
    ("reference", "repository", "tag"),
    [
        ("localhost/lakeloop/minio:1a2b", "localhost/lakeloop/minio", "1a2b"),
        ("host:5000/minio:1", "host:5000/minio", "1"),
        ("host:5000/minio@sha256:ab", "host:5000/minio", "sha256:ab"),
    ],
)
def test_image(reference: str, repository: str, tag: str) -> None:
    assert image(reference) == {"repository": repository, "tag": tag}


@pytest.mark.parametrize("reference", ["minio", "host:5000/minio", ""])
def test_image_without_a_tag(reference: str) -> None:
    with pytest.raises(CliError, match="has no tag"):
        image(reference)


def test_images_reach_both_charts() -> None:
    values = from_images(IMAGES)
    assert values.platform["postgresql"]["image"] == {"repository": "localhost/lakeloop/postgres", "tag": "pos"}
    assert values.platform.keys() == {"minio", "postgresql", "mlflow"}
    assert values.lakeloop["images"].keys() == {"operator", "trainer", "modelServer"}
    assert values.lakeloop["images"]["modelServer"]["tag"] == "mod"


def test_missing_images_are_named() -> None:
    with pytest.raises(CliError, match="lacks minio, trainer: build them"):
        from_images({name: ref for name, ref in IMAGES.items() if name not in ("minio", "trainer")})


@pytest.mark.parametrize(
    ("profile", "addresses", "page", "hosts"),
    [
        ("local", ["10.1.2.3", "10.1.2.4"], "http://10.1.2.3:30500", ["10.1.2.3", "10.1.2.4"]),
        ("local", [], "http://127.0.0.1:30500", []),
        ("kind", ["172.18.0.2"], "http://127.0.0.1:30500", ["172.18.0.2"]),
    ],
)
def test_profiles(profile: Profile, addresses: list[str], page: str, hosts: list[str]) -> None:
    values = from_profile(profile, addresses)
    assert values.lakeloop == {"tracking": {"uiUrl": page}}
    assert values.platform == {"mlflow": {"extraAllowedHosts": hosts}}


def test_profile_any_says_nothing() -> None:
    assert from_profile("any", ["10.1.2.3"]) == ChartValues()


def test_workload_namespaces_get_a_user_each() -> None:
    users = from_workloads(["a", "b"]).platform["minio"]["users"]
    assert users == [{"name": n, "namespace": n, "secretName": "lakeloop-storage"} for n in ("a", "b")]


@pytest.mark.parametrize(
    ("settings", "platform", "lakeloop"),
    [
        (["platform.minio.enabled=false"], {"minio": {"enabled": False}}, {}),
        (["lakeloop.replicas=2", "lakeloop.log.level=debug"], {}, {"replicas": 2, "log": {"level": "debug"}}),
        (["lakeloop.watchNamespaces=[a, b]"], {}, {"watchNamespaces": ["a", "b"]}),
        (["lakeloop.tracking.uri=http://m:5000/?a=b"], {}, {"tracking": {"uri": "http://m:5000/?a=b"}}),
        (["lakeloop.tracking.uiUrl="], {}, {"tracking": {"uiUrl": ""}}),
        (["lakeloop.replicas=2", "lakeloop.replicas=3"], {}, {"replicas": 3}),
    ],
)
def test_settings(settings: list[str], platform: dict[str, Any], lakeloop: dict[str, Any]) -> None:
    assert from_settings(settings) == ChartValues(platform, lakeloop)


@pytest.mark.parametrize("setting", ["replicas=2", "lakeloop=2", "lakeloop.replicas", "other.a=1", "lakeloop..a=1"])
def test_settings_that_name_no_place(setting: str) -> None:
    with pytest.raises(CliError, match=r"write platform\.<path>=<value> or lakeloop"):
        from_settings([setting])


def test_settings_that_are_no_yaml() -> None:
    with pytest.raises(CliError, match="not YAML"):
        from_settings(["lakeloop.a=[1"])


def test_files() -> None:
    assert from_file({"platform": {"a": 1}}, "f.yaml") == ChartValues({"a": 1}, {})
    assert from_file({"lakeloop": None}, "f.yaml") == ChartValues()


@pytest.mark.parametrize("content", [None, [], {"minio": {}}, "text"])
def test_files_of_another_shape(content: Any) -> None:
    with pytest.raises(CliError, match=r"f\.yaml: write the values"):
        from_file(content, "f.yaml")


def test_later_layers_win() -> None:
    layers = [ChartValues({"a": {"b": 1}}, {"x": 1}), ChartValues({"a": {"c": 2}}), ChartValues({}, {"x": 2})]
    assert combine(*layers) == ChartValues({"a": {"b": 1, "c": 2}}, {"x": 2})
