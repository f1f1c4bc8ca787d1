"""Projects out of git: a real repository, over HTTP on this machine."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from dulwich.objects import Blob, Commit, Tag, Tree
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain
from lakeloop_trainer import git_source
from lakeloop_trainer.failures import RunFailure


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Repository:
    """A repository with a few commits."""

    def __init__(self, folder: Path) -> None:
        self.repo = Repo.init_bare(folder, mkdir=True)
        self.commits: list[str] = []
        self.password: str | None = None

    def commit(self, files: dict[str, tuple[bytes, int]], branch: str = "main") -> str:
        tree = self._tree({tuple(name.split("/")): found for name, found in files.items()})
        commit = Commit()
        commit.tree, commit.message = tree.id, b"next"
        commit.author = commit.committer = b"a <a@example.org>"
        commit.author_time = commit.commit_time = 1_700_000_000 + len(self.commits)
        commit.author_timezone = commit.commit_timezone = 0
        ref = f"refs/heads/{branch}".encode()
        commit.parents = [self.repo.refs[ref]] if ref in self.repo.refs else []
        self.repo.object_store.add_object(commit)
        self.repo.refs[ref] = commit.id
        self.repo.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")
        self.commits.append(commit.id.decode())
        return self.commits[-1]

    def tag(self, name: str, commit: str) -> None:
        tag = Tag()
        tag.name, tag.message, tag.object = name.encode(), b"a release", (Commit, commit.encode())
        tag.tagger, tag.tag_time, tag.tag_timezone = b"a <a@example.org>", 1_700_000_000, 0
        self.repo.object_store.add_object(tag)
        self.repo.refs[f"refs/tags/{name}".encode()] = tag.id

    def _tree(self, files: dict[tuple[str, ...], tuple[bytes, int]]) -> Tree:
        tree = Tree()
        for name in sorted({path[0] for path in files}):
            below = {path[1:]: found for path, found in files.items() if path[0] == name}
            if () in below:
                content, mode = below[()]
                blob = Blob.from_string(content)
                self.repo.object_store.add_object(blob)
                tree.add(name.encode(), mode, blob.id)
            else:
                tree.add(name.encode(), 0o40000, self._tree(below).id)
        self.repo.object_store.add_object(tree)
        return tree


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[tuple[Repository, str]]:
    """The repository and its URL."""
    repository = Repository(tmp_path / "forge")
    git: Callable[..., Any] = make_wsgi_chain(DictBackend({"/team/code.git": repository.repo}))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if repository.password is not None:
            wanted = "Basic " + base64.b64encode(f"bot:{repository.password}".encode()).decode()
            if environ.get("HTTP_AUTHORIZATION") != wanted:
                start_response("401 Unauthorized", [("WWW-Authenticate", "Basic realm=code")])
                return [b""]
        return git(environ, start_response)

    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    # shutdown waits for as long as the server polls
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield repository, f"http://127.0.0.1:{server.server_port}/team/code.git"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def into(tmp_path: Path) -> Path:
    found = tmp_path / "work/code"
    found.mkdir(parents=True)
    return found


FIRST = {"MLproject": (b"name: first", 0o100644), "deep/run.sh": (b"true", 0o100755)}
SECOND = {"MLproject": (b"name: second", 0o100644)}


@pytest.mark.parametrize(
    ("version", "name"),
    [(None, "third"), ("main", "third"), ("v1", "first"), ("refs/heads/side", "side"), ("side", "side")],
)
def test_a_named_version(forge: tuple[Repository, str], into: Path, version: str | None, name: str) -> None:
    repository, url = forge
    repository.tag("v1", repository.commit(FIRST))
    repository.commit(SECOND)
    repository.commit({"MLproject": (b"name: side", 0o100644)}, "side")
    repository.commit({"MLproject": (b"name: third", 0o100644)})
    commit = git_source.fetch(url, version, None, into)
    assert (into / "MLproject").read_text() == f"name: {name}"
    assert commit in repository.commits
    if name == "first":
        assert (into / "deep/run.sh").stat().st_mode & 0o100
    assert [path.name for path in into.parent.iterdir()] == ["code"]


@pytest.mark.parametrize("length", [8, 40])
def test_a_commit(forge: tuple[Repository, str], into: Path, length: int) -> None:
    repository, url = forge
    first = repository.commit(FIRST)
    repository.commit(SECOND)
    assert git_source.fetch(url, first[:length], None, into) == first
    assert (into / "MLproject").read_text() == "name: first"


def test_a_later_attempt_has_the_commit_of_the_first(forge: tuple[Repository, str], into: Path) -> None:
    repository, url = forge
    first = repository.commit(FIRST)
    repository.commit(SECOND)
    for version in ("main", None):
        assert git_source.fetch(url, version, first, into) == first
        assert (into / "MLproject").read_text() == "name: first"


@pytest.mark.parametrize("version", ["mian", "0123456789abcdef0123456789abcdef01234567", "abcdef1"])
def test_a_version_that_is_not_there(forge: tuple[Repository, str], into: Path, version: str) -> None:
    repository, url = forge
    repository.tag("v1", repository.commit(FIRST))
    with pytest.raises(RunFailure) as failed:
        git_source.fetch(url, version, None, into)
    assert (failed.value.reason, failed.value.field) == ("ProjectNotFound", "spec.project.version")
    assert f"no branch, tag or commit {version}; it has main, v1" in failed.value.message


def test_credentials_come_from_the_environment(
    forge: tuple[Repository, str], into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, url = forge
    repository.commit(FIRST)
    repository.password = "very-secret"
    with pytest.raises(RunFailure) as failed:
        git_source.fetch(url, None, None, into)
    assert failed.value.reason == "CredentialsRefused"
    assert "GIT_USERNAME and GIT_PASSWORD" in failed.value.message
    monkeypatch.setenv("GIT_USERNAME", "bot")
    monkeypatch.setenv("GIT_PASSWORD", "very-secret")
    assert git_source.fetch(f"git+{url}" if url.startswith("https") else url, None, None, into) in repository.commits


def test_a_password_in_the_address_is_refused(into: Path) -> None:
    with pytest.raises(RunFailure, match="holds a password") as failed:
        git_source.fetch("https://me:token@forge.example/x.git", None, None, into)
    assert "token@" not in failed.value.message


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({".git/config": (b"", 0o100644)}, "leads out"),
        ({"../out": (b"", 0o100644)}, "leads out"),
    ],
)
def test_what_a_tree_must_not_hold(
    forge: tuple[Repository, str], into: Path, files: dict[str, tuple[bytes, int]], said: str
) -> None:
    repository, url = forge
    repository.commit(files)
    with pytest.raises(RunFailure, match=said) as failed:
        git_source.fetch(url, None, None, into)
    assert failed.value.reason == "CodeRefused"
    assert list(into.iterdir()) == []


def test_links_and_submodules_are_left_out(forge: tuple[Repository, str], into: Path) -> None:
    repository, url = forge
    repository.commit({**SECOND, "link": (b"/etc/passwd", 0o120000), "below": (b"", 0o160000)})
    git_source.fetch(url, None, None, into)
    assert [path.name for path in into.iterdir()] == ["MLproject"]


def test_no_repository_and_no_server(forge: tuple[Repository, str], into: Path) -> None:
    _, url = forge
    with pytest.raises(RunFailure) as failed:
        git_source.fetch(url.replace("code.git", "other.git"), None, None, into)
    assert (failed.value.reason, failed.value.failure_class) == ("ProjectNotFound", "Application")
    with pytest.raises(RunFailure) as failed:
        git_source.fetch("http://127.0.0.1:9/x.git", None, None, into)
    assert (failed.value.reason, failed.value.failure_class) == ("GitUnavailable", "Infrastructure")


def test_ssh_without_the_program(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(into))
    with pytest.raises(RunFailure, match="needs the program ssh") as failed:
        git_source.fetch("ssh://git@127.0.0.1:9/x.git", None, None, into)
    assert failed.value.reason == "InvalidConf"
