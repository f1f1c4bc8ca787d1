"""A commit of a git repository as files, fetched by dulwich: the image has no git of its own.

Credentials come from the environment alone: GIT_USERNAME and GIT_PASSWORD (a token, mostly), which a template's env
takes from a Secret.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lakeloop_trainer import archives
from lakeloop_trainer.failures import RunFailure, chain, exception_line, scrub

FIELD = "spec.project.uri"
TIMEOUT_SECONDS = 120
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_SUBMODULE = 0o160000

log = logging.getLogger("lakeloop_trainer")


def is_git(uri: str) -> bool:
    """Whether the address is that of a repository."""
    return uri.partition("://")[0] in ("https", "http", "git", "ssh", "git+https", "git+ssh")


def fetch(uri: str, version: str | None, pinned: str | None, into: Path) -> str:
    """Puts the files of a branch, a tag or a commit into a folder, and gives the commit's id.

    ``version`` None: the head. ``pinned``: the commit that an earlier attempt used; it wins.

    Raises:
        RunFailure: ProjectNotFound, CodeRefused, CredentialsRefused, GitUnavailable, InvalidConf.
    """
    from dulwich.client import default_urllib3_manager, get_transport_and_path
    from dulwich.repo import Repo

    url = uri.removeprefix("git+").partition("#")[0]
    user = urlsplit(url).netloc.rpartition("@")[0]
    if ":" in user:
        message = f"{FIELD} holds a password: put it into a Secret, and that into GIT_USERNAME and GIT_PASSWORD in the"
        raise RunFailure("InvalidConf", f"{message} env of spec.spark.driver.template", FIELD)
    options: dict[str, Any] = {"quiet": True}
    if url.startswith("http"):
        options |= {"username": os.environ.get("GIT_USERNAME"), "password": os.environ.get("GIT_PASSWORD")}
        options["pool_manager"] = default_urllib3_manager(None, base_url=url, timeout=TIMEOUT_SECONDS)
    with tempfile.TemporaryDirectory(dir=into.parent) as temporary:
        repository: Any = Repo.init_bare(temporary)
        try:
            client: Any
            client, path = get_transport_and_path(url, **options)
            chosen: dict[str, Any] = {}

            def wants(refs: Mapping[bytes, bytes], depth: int | None = None) -> list[bytes]:
                chosen["refs"] = {name: sha for name, sha in refs.items() if sha}
                named = _named(chosen["refs"], version)
                chosen["one"] = named
                return [named] if named else _everything(chosen["refs"])

            # the last commit alone, where it has a name and is the right one
            client.fetch(path, repository, determine_wants=wants, depth=1 if _may_be_named(version, pinned) else None)
            commit = _commit(repository, chosen, version, pinned)
            if commit is None and chosen.get("one"):
                # a branch that moved on: the pinned commit is further back
                client.fetch(path, repository, determine_wants=lambda refs, depth=None: _everything(refs))
                commit = _commit(repository, {**chosen, "one": None}, pinned or version, pinned)
        except RunFailure:
            raise
        except Exception as error:
            raise _failure(error, url) from error
        if commit is None:
            names = sorted(
                {_short(name) for name in chosen["refs"] if name.startswith((b"refs/heads/", b"refs/tags/"))}
            )
            where = "spec.project.version"
            message = f"{where}: {scrub(url)} has no branch, tag or commit {pinned or version}; it has "
            raise RunFailure("ProjectNotFound", f"{message}{', '.join(names[:10]) or 'none'}", where)
        _write(repository, commit, into)
        repository.close()
        return commit.decode()


def _may_be_named(version: str | None, pinned: str | None) -> bool:
    return not (version and _COMMIT.fullmatch(version)) and pinned is None


def _named(refs: Mapping[bytes, bytes], version: str | None) -> bytes | None:
    names = (
        [b"HEAD"]
        if version is None
        else [prefix + version.encode() for prefix in (b"refs/tags/", b"refs/heads/", b"refs/", b"")]
    )
    return next((refs[name] for name in names if name in refs), None)


def _everything(refs: Mapping[bytes, bytes | None]) -> list[bytes]:
    heads = {sha for name, sha in refs.items() if sha and name.startswith((b"refs/heads/", b"refs/tags/"))}
    return sorted({sha for name, sha in refs.items() if sha and sha in heads and not name.endswith(b"^{}")})


def _commit(repository: Any, chosen: Mapping[str, Any], version: str | None, pinned: str | None) -> bytes | None:
    """The commit, where it was fetched."""
    store = repository.object_store
    if pinned is not None:
        return pinned.encode() if pinned.encode() in store else None
    if chosen.get("one"):
        return _peeled(store, chosen["one"])
    if version is None or not _COMMIT.fullmatch(version):
        return None
    if len(version) == 40:
        return version.encode() if version.encode() in store else None
    found = {sha for sha in store if sha.startswith(version.encode())}
    commits = [sha for sha in found if store[sha].type_name == b"commit"]
    return commits[0] if len(commits) == 1 else None


def _peeled(store: Any, sha: bytes) -> bytes:
    found = store[sha]
    while found.type_name == b"tag":
        sha = found.object[1]
        found = store[sha]
    return sha


def _write(repository: Any, commit: bytes, into: Path) -> None:
    store = repository.object_store
    left = archives.MAX_BYTES
    for entry in store.iter_tree_contents(store[commit].tree):
        name = entry.path.decode("utf-8", "surrogateescape")
        parts = Path(name).parts
        if stat.S_ISLNK(entry.mode) or entry.mode == _SUBMODULE:
            log.warning("%s is a link or a submodule: left out", name)
            continue
        if ".." in parts or name.startswith("/") or any(part.lower() == ".git" for part in parts):
            raise RunFailure("CodeRefused", f"{FIELD}: {name!r} leads out of its folder", FIELD)
        content = store[entry.sha].data
        left -= len(content)
        if left < 0:
            message = f"{FIELD}: the repository's files take more than {archives.MAX_BYTES >> 20} MiB"
            raise RunFailure("CodeRefused", message, FIELD)
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if entry.mode & stat.S_IXUSR:
            target.chmod(0o755)


def _short(name: bytes) -> str:
    return name.decode(errors="replace").removeprefix("refs/heads/").removeprefix("refs/tags/").removesuffix("^{}")


def _failure(error: Exception, url: str) -> RunFailure:
    told = scrub(exception_line(error))[:300]
    where = scrub(url)
    if type(error).__name__ in ("HTTPUnauthorized", "HTTPProxyUnauthorized"):
        advice = "put GIT_USERNAME and GIT_PASSWORD (a token) into the env of spec.spark.driver.template, from a Secret"
        return RunFailure("CredentialsRefused", f"{FIELD}: {where} wants other credentials: {advice}", FIELD)
    if isinstance(error, FileNotFoundError) and error.filename == "ssh":
        message = f"{FIELD}: {where} needs the program ssh, which this image lacks: use https, or an image that has it"
        return RunFailure("InvalidConf", message, FIELD)
    unreachable = any(isinstance(at, OSError) or type(at).__module__.startswith("urllib3") for at in chain(error))
    if unreachable or re.search(r"http resp 5\d\d", told):
        return RunFailure("GitUnavailable", f"{FIELD}: {where} cannot be reached: {told}", FIELD)
    if type(error).__name__ in ("NotGitRepository", "HangupException", "GitProtocolError"):
        return RunFailure("ProjectNotFound", f"{FIELD}: {where} is no repository that can be read: {told}", FIELD)
    return RunFailure("GitUnavailable", f"{FIELD}: {where} cannot be fetched: {told}", FIELD)
