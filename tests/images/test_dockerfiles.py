"""What every image of this repository keeps to, read off its Dockerfile and its lock."""

import re
from pathlib import Path

import pytest

from localcluster.images import definitions, engines

ROOT = Path(__file__).parents[2]
IMAGES = definitions.present(ROOT)


@pytest.fixture(params=IMAGES, ids=lambda one: one.name)
def dockerfile(request: pytest.FixtureRequest) -> str:
    """The text of each image's Dockerfile."""
    return (ROOT / request.param.dockerfile).read_text()


def test_all_six_are_there() -> None:
    assert {one.name for one in IMAGES} == {"operator", "trainer", "model-server", "mlflow", "minio", "postgres"}


def test_base_is_an_argument(dockerfile: str) -> None:
    assert re.search(r"^ARG BASE=\S+$", dockerfile, re.MULTILINE)
    assert dockerfile.count("FROM ${BASE}") >= 1


def test_last_stage_is_not_root(dockerfile: str) -> None:
    users = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert users[-1] == "10001:10001"


def test_labels(dockerfile: str) -> None:
    for label in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{label}=" in dockerfile


def test_nothing_of_this_machine_is_copied_in(dockerfile: str) -> None:
    assert not re.search(r"https?_proxy=|PIP_INDEX_URL|ca-certificates.crt", dockerfile, re.IGNORECASE)


def test_jars_are_locked_once() -> None:
    rows = [line for line in (ROOT / "images/trainer/jars.lock").read_text().splitlines() if not line.startswith("#")]
    names = [row.split(":")[1] for row in rows]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"\S+:\S+:\S+ [0-9a-f]{64}", row) for row in rows)


def test_reference_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "images/x").mkdir(parents=True)
    (tmp_path / "images/x/Dockerfile").write_text("FROM scratch")
    one = definitions.Definition("x", "images/x", "debian")
    before = definitions.reference(tmp_path, one, "base:1")
    assert definitions.reference(tmp_path, one, "base:1") == before
    assert definitions.reference(tmp_path, one, "base:2") != before
    (tmp_path / "images/x/file").write_text("new")
    assert definitions.reference(tmp_path, one, "base:1") != before


def test_reference_ignores_what_a_build_leaves_behind(tmp_path: Path) -> None:
    (tmp_path / "images/x").mkdir(parents=True)
    (tmp_path / "images/x/Dockerfile").write_text("FROM scratch")
    one = definitions.Definition("x", "images/x", "debian")
    before = definitions.reference(tmp_path, one, "base:1")
    (tmp_path / "images/x/__pycache__").mkdir()
    (tmp_path / "images/x/__pycache__/a.pyc").write_bytes(b"1")
    assert definitions.reference(tmp_path, one, "base:1") == before


def test_unknown_image_is_named() -> None:
    with pytest.raises(ValueError, match="no such image: nothing; there are"):
        definitions.select(ROOT, ["nothing"])


def test_the_two_engines_build_the_same_dockerfile() -> None:
    lent = engines.Lent([("/etc/pip.conf", "/etc/pip.conf", "ro")], {"HTTPS_PROXY": "http://proxy"})
    buildah = engines.buildah_command(ROOT, "images/mlflow/Dockerfile", "images/mlflow", "x:1", "base:1", lent)
    docker = engines.docker_command(ROOT, "images/mlflow/Dockerfile", "images/mlflow", "x:1")
    assert buildah[-3:] == docker[-3:]
    assert "BASE=base:1" in buildah
    assert "/etc/pip.conf:/etc/pip.conf:ro" in buildah
    assert not any("BASE" in word for word in docker)
