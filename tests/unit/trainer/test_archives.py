"""What an archive of somebody else's must not do."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lakeloop_trainer.archives import ArchiveRefused, unpack

Make = Callable[[Path], None]


def zipped(*entries: tuple[str, bytes, int]) -> Make:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content, mode in entries:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, content)

    return make


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> Make:
    def make(path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            for info, content in members:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    return make


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


REFUSED: dict[str, tuple[str, Make, str]] = {
    "zip: up": ("a.zip", zipped(("../out.py", b"x", 0)), "leads out"),
    "zip: absolute": ("a.zip", zipped(("/tmp/out.py", b"x", 0)), "leads out"),
    "zip: backslashes": ("a.zip", zipped(("..\\out.py", b"x", 0)), "leads out"),
    "zip: a drive": ("a.zip", zipped(("C:/out.py", b"x", 0)), "leads out"),
    "zip: a link": ("a.zip", zipped(("link", b"/etc/passwd", stat.S_IFLNK | 0o777)), "a link or a device"),
    "zip: a bomb": ("a.zip", zipped(("zeros", bytes(3 << 20), 0)), "larger than 2 MiB"),
    "zip: many files": ("a.zip", zipped(*[(f"f{i}", b"", 0) for i in range(11)]), "more than 10 files"),
    "zip: not one": ("a.zip", lambda path: path.write_bytes(b"PK nothing") and None, "cannot be unpacked"),
    "tar: up": ("a.tar.gz", tarred((member("../out.py"), b"x")), "leads out"),
    "tar: absolute": ("a.tar.gz", tarred((member("/tmp/out.py"), b"x")), "leads out"),
    "tar: a link out": ("a.tgz", tarred((member("link", tarfile.SYMTYPE, "../../etc"), b"")), "cannot be unpacked"),
    "tar: a hard link out": ("a.tgz", tarred((member("link", tarfile.LNKTYPE, "../x"), b"")), "cannot be unpacked"),
    "tar: a device": ("a.tgz", tarred((member("null", tarfile.CHRTYPE), b"")), "a device"),
    "tar: a bomb": ("a.tar.gz", tarred((member("zeros"), bytes(3 << 20))), "larger than 2 MiB"),
    "tar: not one": ("a.tar.gz", lambda path: path.write_bytes(b"nothing") and None, "cannot be unpacked"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    file_name, make, said = REFUSED[name]
    folder = tmp_path / "below/into"
    folder.mkdir(parents=True)
    make(tmp_path / file_name)
    with pytest.raises(ArchiveRefused, match=said):
        unpack(tmp_path / file_name, folder, max_bytes=2 << 20, max_files=10)
    assert not (tmp_path / "below/out.py").exists()
    assert not (tmp_path / "out.py").exists()


def test_a_link_inside_is_followed_on_the_way_to_no_file_outside(tmp_path: Path) -> None:
    """First a link that looks harmless, then a file through it."""
    make = tarred((member("a", tarfile.SYMTYPE, "b"), b""), (member("b", tarfile.SYMTYPE, ".."), b""),
                  (member("a/out.py"), b"x"))  # fmt: skip
    make(tmp_path / "a.tgz")
    into = tmp_path / "into"
    with pytest.raises(ArchiveRefused):
        unpack(tmp_path / "a.tgz", into)
    assert not (tmp_path / "out.py").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_folders_and_the_executable_bit_are_kept(name: str, tmp_path: Path) -> None:
    run = member("pkg/run.sh")
    run.mode = 0o755
    make = (
        zipped(("pkg/a.py", b"1", 0o100644), ("pkg/run.sh", b"2", 0o100755))
        if name.endswith("zip")
        else tarred((member("pkg/a.py"), b"1"), (run, b"2"))
    )
    make(tmp_path / name)
    unpack(tmp_path / name, tmp_path / "into")
    assert (tmp_path / "into/pkg/a.py").read_bytes() == b"1"
    assert (tmp_path / "into/pkg/run.sh").stat().st_mode & stat.S_IXUSR
