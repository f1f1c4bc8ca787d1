"""Unpacks an archive of somebody else's making: nothing of it lands outside of its folder, and it ends somewhere."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
MAX_BYTES = 1 << 30
MAX_FILES = 20_000
_CHUNK = 1 << 20


class ArchiveRefused(ValueError):
    """The archive is none, or does what an archive of code has no need to."""


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked."""
    return name.lower().endswith(ENDINGS)


def unpack(archive: Path, into: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
    """Unpacks a .zip or a .tar(.gz).

    Raises:
        ArchiveRefused: a path or a link that leads out, a device, more bytes or files than allowed, no archive at all.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, into, max_bytes, max_files)
        else:
            _untar(archive, into, max_bytes, max_files)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ArchiveRefused(f"cannot be unpacked: {type(error).__name__}: {error}") from error


def _unzip(archive: Path, into: Path, max_bytes: int, max_files: int) -> None:
    left = max_bytes
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        _check_count(len(entries), max_files)
        for entry in entries:
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveRefused(f"holds {entry.filename}, which is a link or a device: pack the file itself")
            target = into / _inside(entry.filename)
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as source, target.open("wb") as sink:
                while chunk := source.read(_CHUNK):  # what the directory says of sizes is not believed
                    left -= len(chunk)
                    _check_left(left, max_bytes)
                    sink.write(chunk)
            if mode & stat.S_IXUSR:
                target.chmod(0o755)


def _untar(archive: Path, into: Path, max_bytes: int, max_files: int) -> None:
    left, count = max_bytes, 0
    with tarfile.open(archive, "r:*") as opened:
        for member in opened:
            count += 1
            _check_count(count, max_files)
            _inside(member.name)
            if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                raise ArchiveRefused(f"holds {member.name}, which is a device: take it out")
            left -= member.size
            _check_left(left, max_bytes)
            # the filter refuses links that lead out, and takes owners and odd modes away
            opened.extract(member, into, filter="data")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0] or "\0" in name:
        raise ArchiveRefused(f"holds {name!r}, which leads out of its folder: pack relative paths")
    return path


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise ArchiveRefused(f"holds more than {most} files: pack the code alone")


def _check_left(left: int, most: int) -> None:
    if left < 0:
        raise ArchiveRefused(f"is larger than {most >> 20} MiB unpacked: pack the code alone, data belongs in a table")
