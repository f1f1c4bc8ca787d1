"""What is made on this machine is made once, whoever asks for it at the same time."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localcluster.images import hostmade

GO = """\
#!/bin/sh
[ "$1" = env ] && { echo go1.99; exit; }
echo built >> "$BUILDS"
while [ "$1" != -o ]; do shift; done
echo program > "$2"
"""


def test_two_that_want_the_same_program_build_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, programs, builds = tmp_path / "minio", tmp_path / "bin", tmp_path / "builds"
    for folder in (context, programs):
        folder.mkdir()
    for name in hostmade.MINIO_SOURCES:
        (context / name).write_text(name)
    (programs / "go").write_text(GO)
    (programs / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("BUILDS", str(builds))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    together = threading.Barrier(2)

    def ask() -> Path:
        together.wait(30)
        return hostmade.minio(context)

    with ThreadPoolExecutor(2) as pool:
        first, second = [asked.result() for asked in [pool.submit(ask) for _ in range(2)]]
    assert first == second
    assert (first / "minio").read_text() == "program\n"
    assert builds.read_text() == "built\n"
    assert hostmade.minio(context) == first
    assert builds.read_text() == "built\n"
