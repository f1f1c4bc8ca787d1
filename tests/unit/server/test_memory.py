"""How much memory a request may take."""

import resource
from pathlib import Path

import pytest
from lakeloop_server import memory

MEMINFO = "MemTotal:       8000 kB\nMemAvailable:   4000 kB\n"


@pytest.mark.parametrize(
    ("limit", "stat", "expected"),
    [
        pytest.param(
            "2048000", "anon 1000000\nfile 900000\nshmem 24000\n", 1024000, id="up to the limit, less what is used"
        ),
        pytest.param("max", "anon 1\n", 4096000, id="no limit"),
        pytest.param("9999999999", "anon 1\n", 4096000, id="a limit that the machine cannot give"),
        pytest.param("100", "anon 1000\n", 0, id="nothing left"),
        pytest.param(None, None, 4096000, id="no cgroup"),
    ],
)
def test_available(limit: str | None, stat: str | None, expected: int, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    if limit is not None and stat is not None:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.stat").write_text(stat)
    assert memory.available(tmp_path, tmp_path / "meminfo") == expected


def test_the_first_version_of_cgroups(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("2048000\n")
    (tmp_path / "memory/memory.stat").write_text("rss 1\ntotal_rss 1000000\ntotal_shmem 24000\n")
    assert memory.available(tmp_path, tmp_path / "meminfo") == 1024000


def test_a_limit_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("Name:\tx\nVmData:\t    1000 kB\n")
    asked: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.append((what, limits)))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5, 1_500_000))
    memory.limit_process(100_000, tmp_path / "status")
    memory.limit_process(10**9, tmp_path / "status")
    assert asked == [
        (resource.RLIMIT_DATA, (1_024_000 + 90_000, 1_500_000)),
        (resource.RLIMIT_DATA, (1_500_000, 1_500_000)),
    ]
