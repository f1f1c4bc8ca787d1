"""What every image of this repository keeps to, read off its Dockerfile and its lock."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from localcluster.images import definitions, hostmade

ROOT = Path(__file__).parents[2]
IMAGES = definitions.present(ROOT)
MAVEN = {"m": "http://maven.apache.org/POM/4.0.0"}


@pytest.fixture(params=IMAGES, ids=lambda one: one.name)
def dockerfile(request: pytest.FixtureRequest) -> str:
    """The text of each image's Dockerfile."""
    return (ROOT / request.param.dockerfile).read_text()


def steps(dockerfile: str) -> list[str]:
    """The instructions, comments left out and continued lines joined."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.startswith("#"))
    return [line for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def test_all_six_are_there() -> None:
    assert {one.name for one in IMAGES} == {"operator", "trainer", "model-server", "mlflow", "minio", "postgres"}


def test_what_tools_leave_behind_changes_no_image() -> None:
    left = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    tools = {
        each for each in left if each.endswith("_cache") or each in (".venv", "__pycache__", ".hypothesis", "dist")
    }
    assert {".mypy_cache", ".import_linter_cache"} <= tools
    for one in IMAGES:
        context = ROOT / one.context
        if (context / "pyproject.toml").is_file():
            assert tools - set((context / ".dockerignore").read_text().split()) == set(), one.name


def test_base_is_an_argument(dockerfile: str) -> None:
    assert re.search(r"^ARG BASE=(python:3\.11-slim-bookworm|debian:bookworm-slim)$", dockerfile, re.MULTILINE)
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", dockerfile, re.MULTILINE)
    names = {name for _, name in stages}
    assert all(base.startswith("${") or base in names for base, _ in stages)


def test_last_stage_is_not_root(dockerfile: str) -> None:
    users = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert users[-1] == "10001:10001"


def test_entry_point_is_absolute(dockerfile: str) -> None:
    assert re.findall(r'^ENTRYPOINT \["(/[^"]+)"\]$', dockerfile, re.MULTILINE)


def test_labels(dockerfile: str) -> None:
    for label in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{label}=" in dockerfile


def test_nothing_of_a_machine_is_copied_in(dockerfile: str) -> None:
    assert not re.search(r"https?_proxy|index_url|ca-certificates\.crt|SSL_CERT_FILE", dockerfile, re.IGNORECASE)


def test_steps_that_fetch_read_this_machines_configuration(dockerfile: str) -> None:
    fetching = re.compile(r"pip install|uv sync|uv build|apt-get|go build")
    wanted = [step for step in steps(dockerfile) if step.startswith("RUN") and fetching.search(step)]
    assert wanted
    for step in wanted:
        assert "--mount=type=secret,id=network " in step
        assert "--mount=type=secret,id=ca " in step
        assert "[ ! -e /run/secrets/network ] || . /run/secrets/network;" in step
        assert ("id=apt " in step and "id=sources," in step) == ("apt-get" in step)


@pytest.mark.parametrize("name", ["operator", "trainer", "model-server"])
def test_our_code_is_a_layer_after_its_dependencies(name: str) -> None:
    found = steps((ROOT / f"images/{name}/Dockerfile").read_text())
    lock = next(i for i, step in enumerate(found) if step.startswith("COPY pyproject.toml uv.lock"))
    dependencies = next(i for i, step in enumerate(found) if "uv sync --frozen --no-dev --no-install-project" in step)
    code = found.index("COPY . /src")
    last = max(i for i, step in enumerate(found) if step.startswith("FROM "))
    assert lock < dependencies < code < last
    assert [step for step in found[last:] if step.startswith("COPY --from=")] == [
        "COPY --from=code /opt/code /opt/venv"
    ]
    # The last stage stands on the one with the dependencies: nothing large is copied, nor hashed, when our code changes.
    stage = found[last].split()[1]
    assert next(i for i, step in enumerate(found) if step.endswith(f" AS {stage}")) < lock
    assert not [step for step in found[last:] if step.startswith("RUN")]


def test_stand_ins_are_made_as_the_dockerfiles_make_them() -> None:
    minio = (ROOT / "images/minio/Dockerfile").read_text()
    ldflags = (ROOT / "images/minio/ldflags").read_text().strip()
    command = " ".join(hostmade.minio_command('"$(cat ldflags)"', Path("/minio")))
    assert command in minio
    assert "7aac2a2c5b7c" in ldflags
    trainer = (ROOT / "images/trainer/Dockerfile").read_text()
    assert " ".join(hostmade.jars_command(Path("/src"), Path("/jars"))) in trainer
    for name, (stage, _) in hostmade.STAND_INS.items():
        assert re.search(rf"^FROM \S+ AS {stage}$", (ROOT / f"images/{name}/Dockerfile").read_text(), re.MULTILINE)


def test_minio_is_the_locked_commit() -> None:
    lock = (ROOT / "images/minio/go.mod").read_text()
    assert "github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c" in lock
    assert re.search(r"^tool github.com/minio/minio$", lock, re.MULTILINE)


def jars() -> dict[str, str]:
    """Artifact → version of the trainer's pom."""
    project = ElementTree.parse(ROOT / "images/trainer/pom.xml").getroot()  # noqa: S314 (our own file)
    values = {one.tag.partition("}")[2]: one.text or "" for one in project.find("m:properties", MAVEN) or []}
    found = {}
    for dependency in project.iterfind("m:dependencies/m:dependency", MAVEN):
        version = dependency.findtext("m:version", "", MAVEN)
        found[dependency.findtext("m:artifactId", "", MAVEN)] = re.sub(
            r"\$\{(.*)\}", lambda match: values[match[1]], version
        )
        exclusion = dependency.find("m:exclusions/m:exclusion", MAVEN)
        assert exclusion is not None
        assert exclusion.findtext("m:artifactId", "", MAVEN) == "*"
    return found


def test_jars_are_locked_once_and_with_their_checksums() -> None:
    rows = (ROOT / "images/trainer/jars.sha256").read_text().splitlines()
    names = [row.split("  ")[1] for row in rows]
    assert all(re.fullmatch(r"[0-9a-f]{64}  \S+\.jar", row) for row in rows)
    assert sorted(names) == sorted(f"{artifact}-{version}.jar" for artifact, version in jars().items())


def test_sdk_comes_by_modules() -> None:
    found = jars()
    assert "bundle" not in found
    assert found["hadoop-aws"].startswith("3.4.")
    assert {"s3", "s3-transfer-manager", "sts"} <= set(found)
    assert found["delta-storage"] == found["delta-spark_4.1_2.13"]


@pytest.mark.parametrize("project", ["operator", "images/trainer", "images/model-server", "images/mlflow"])
def test_locks_name_only_the_default_index(project: str) -> None:
    lock = (ROOT / project / "uv.lock").read_text()
    hosts = set(re.findall(r'(?:url|registry) = "https?://([^/"]+)', lock))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
