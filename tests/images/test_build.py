"""Names, commands and estimates of the builder."""

from pathlib import Path

import pytest

from localcluster.images import bases, build, cleaning, definitions, engines

LENT = engines.Lent(
    secrets={"ca": Path("/etc/bundle.crt"), "network": Path("/tmp/x/network")},
    arguments={"HTTPS_PROXY": "http://proxy:3128"},
    contexts={"build": Path("/cache/minio/1")},
)
WHAT = (Path("/repo"), "images/minio/Dockerfile", "images/minio", "localhost/lakeloop/minio:1")


@pytest.fixture
def one(tmp_path: Path) -> definitions.Definition:
    """An image with one file beside its Dockerfile."""
    (tmp_path / "images/x").mkdir(parents=True)
    (tmp_path / "images/x/Dockerfile").write_text("FROM scratch")
    (tmp_path / "images/x/file").write_text("old")
    (tmp_path / "images/x/.dockerignore").write_text("__pycache__\n.venv\n")
    return definitions.Definition("x", "images/x", "debian", 10)


def test_reference_is_prefix_name_and_twelve_digits(one: definitions.Definition, tmp_path: Path) -> None:
    name, _, tag = definitions.reference(tmp_path, one, "base:1").rpartition(":")
    assert name == "localhost/lakeloop/x"
    assert len(tag) == 12
    assert int(tag, 16) >= 0


@pytest.mark.parametrize(
    ("path", "content", "changes"),
    [
        pytest.param("Dockerfile", "FROM debian", True, id="Dockerfile"),
        pytest.param("file", "new", True, id="file"),
        pytest.param("folder/other", "", True, id="another empty file"),
        pytest.param("__pycache__/a.pyc", "1", False, id="bytecode"),
        pytest.param(".venv/bin/python", "1", False, id="virtual environment"),
    ],
)
def test_reference_follows_what_the_image_is_made_of(
    one: definitions.Definition, tmp_path: Path, path: str, content: str, changes: bool
) -> None:
    before = definitions.reference(tmp_path, one, "base:1")
    target = tmp_path / "images/x" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    assert (definitions.reference(tmp_path, one, "base:1") != before) == changes


def test_reference_follows_the_base(one: definitions.Definition, tmp_path: Path) -> None:
    assert definitions.reference(tmp_path, one, "base:1") != definitions.reference(tmp_path, one, "base:2")


def test_names_and_contents_are_told_apart() -> None:
    assert definitions.tag([("a", b"bc")]) != definitions.tag([("ab", b"c")])
    assert definitions.tag([("a", b""), ("b", b"x")]) != definitions.tag([("a", b"x"), ("b", b"")])


def test_unknown_image_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match="no such image: nothing; there are minio, postgres"):
        definitions.select(root, ["nothing"])


def test_buildah_command() -> None:
    assert engines.buildah_command(*WHAT, "localhost/lakeloop/base-debian:1", LENT) == [
        *("buildah", "bud", "--isolation", "chroot", "--layers", "--pull-never", "--force-rm"),
        *("--format", "oci", "--quiet"),
        *("--build-context", "build=/cache/minio/1"),
        *("--build-arg", "BASE=localhost/lakeloop/base-debian:1"),
        *("--build-arg", "HTTPS_PROXY=http://proxy:3128"),
        *("--secret", "id=ca,src=/etc/bundle.crt", "--secret", "id=network,src=/tmp/x/network"),
        *("--tag", "localhost/lakeloop/minio:1", "--file", "/repo/images/minio/Dockerfile", "/repo/images/minio"),
    ]


def test_docker_builds_the_same_dockerfile_with_its_own_stages() -> None:
    assert engines.docker_command(*WHAT, LENT) == [
        *("docker", "build", "--quiet", "--build-arg", "HTTPS_PROXY=http://proxy:3128"),
        *("--secret", "id=ca,src=/etc/bundle.crt", "--secret", "id=network,src=/tmp/x/network"),
        *("--tag", "localhost/lakeloop/minio:1", "--file", "/repo/images/minio/Dockerfile", "/repo/images/minio"),
    ]


def test_only_set_proxies_are_passed_on() -> None:
    environment = {"HTTPS_PROXY": "http://p", "no_proxy": "", "TOKEN": "secret"}
    assert engines.proxies(environment) == {"HTTPS_PROXY": "http://p"}


def test_base_keeps_nothing_of_the_machines_sources() -> None:
    command = bases.bootstrap_command("python", Path("/out.tar"))
    assert command[0] == "mmdebstrap"
    assert command[-3:] == ["bookworm", "/out.tar", "-"]
    assert any("sources.list.d/*" in word and word.startswith("--customize-hook=rm") for word in command)
    assert "--include=usr-is-merged,ca-certificates,python3,python3-venv" in command


@pytest.mark.parametrize(
    ("weights", "elapsed", "finished", "expected"),
    [
        pytest.param([300, 100, 100], {}, [], 300, id="the longest one bounds it"),
        pytest.param([100, 100, 100, 100], {}, [], 200, id="two lanes share"),
        pytest.param([300, 100], {0: 200.0, 1: 50.0}, [], 100, id="what has passed counts"),
        pytest.param([300, 100], {0: 900.0}, [1], 30, id="late ones are not over yet"),
        pytest.param([300], {0: 10.0}, [0], 0, id="all finished"),
    ],
)
def test_seconds_left(weights: list[int], elapsed: dict[int, float], finished: list[int], expected: float) -> None:
    assert build.seconds_left(weights, elapsed, finished, 2) == pytest.approx(expected)


def test_development_tag() -> None:
    assert build.development_tag("localhost/lakeloop/x:0123456789ab") == "localhost/lakeloop/x:dev"


HOUR = 3600
NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("names", "hours", "expected"),
    [
        pytest.param(None, 13, ["id"], id="nameless and old"),
        pytest.param(None, 11, [], id="nameless and of today: the next build's cache"),
        pytest.param(["localhost/lakeloop/x:old"], 13, ["localhost/lakeloop/x:old"], id="a former state"),
        pytest.param(["localhost/lakeloop/x:now"], 13, [], id="the present state"),
        pytest.param(
            ["localhost/lakeloop/x:old", "localhost/lakeloop/x:dev"], 13, ["localhost/lakeloop/x:old"], id="dev"
        ),
        pytest.param(["localhost/other/x:old"], 99, [], id="not ours"),
    ],
)
def test_what_may_go(names: list[str] | None, hours: int, expected: list[str]) -> None:
    images = [{"id": "id", "names": names, "created": NOW - hours * HOUR}]
    assert cleaning.superseded(images, {"localhost/lakeloop/x:now"}, NOW, 12 * HOUR) == expected
