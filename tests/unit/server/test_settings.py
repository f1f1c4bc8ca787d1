"""The environment of the server's process."""

from pathlib import Path

import pytest
from lakeloop_server.settings import Settings, SettingsError, cpu_limit, process_environment

LEAST = {"LAKELOOP_MODEL_NAME": "churn", "LAKELOOP_MODEL_VERSION": "5", "LAKELOOP_MODEL_URI": "s3://b/p"}


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings.from_env(LEAST)
    assert (settings.workers, settings.max_body_bytes, settings.drain_seconds, settings.port) == (1, 2**24, 20, 8080)
    assert settings.signature_required
    assert settings.termination_log == Path("/dev/termination-log")


def test_a_delay_may_be_a_fraction_of_a_millisecond() -> None:
    assert Settings.from_env(LEAST).batch_max_delay_seconds == 0
    assert Settings.from_env(LEAST | {"LAKELOOP_BATCH_MAX_DELAY_MS": "2.5"}).batch_max_delay_seconds == 0.0025


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    names = ("WORKERS", "MAX_BODY_BYTES", "MODEL_DIGEST", "DRAIN_SECONDS", "DRAIN_LEAST_SECONDS", "PORT", "MODEL_DIR")
    assert Settings.from_env(LEAST | {f"LAKELOOP_{name}": "" for name in names}) == Settings.from_env(LEAST)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        pytest.param({"LAKELOOP_MODEL_NAME": " "}, "LAKELOOP_MODEL_NAME", id="no name"),
        pytest.param({"LAKELOOP_MODEL_NAME": "modèle"}, "LAKELOOP_MODEL_NAME", id="not for a header"),
        pytest.param({"LAKELOOP_MODEL_VERSION": "5\r\nx: y"}, "LAKELOOP_MODEL_VERSION", id="two lines"),
        pytest.param({"LAKELOOP_WORKERS": "0"}, "LAKELOOP_WORKERS", id="no worker"),
        pytest.param({"LAKELOOP_WORKERS": "1.5"}, "LAKELOOP_WORKERS", id="half a worker"),
        pytest.param({"LAKELOOP_BATCH_MAX_SIZE": "0"}, "LAKELOOP_BATCH_MAX_SIZE", id="no row in a batch"),
        pytest.param({"LAKELOOP_BATCH_MAX_DELAY_MS": "nan"}, "LAKELOOP_BATCH_MAX_DELAY_MS", id="not a delay"),
        pytest.param({"LAKELOOP_BATCH_MAX_DELAY_MS": "-1"}, "LAKELOOP_BATCH_MAX_DELAY_MS", id="a delay before"),
        pytest.param({"LAKELOOP_PORT": "70000"}, "LAKELOOP_PORT", id="no such port"),
        pytest.param({"LAKELOOP_SIGNATURE_REQUIRED": "maybe"}, "LAKELOOP_SIGNATURE_REQUIRED", id="not a flag"),
        pytest.param({"LAKELOOP_MODEL_DIGEST": "md5:0"}, "LAKELOOP_MODEL_DIGEST", id="not a digest"),
        pytest.param({"MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "x"}, "ADDRESSING_STYLE", id="addressing style"),
    ],
)
def test_an_unusable_value_is_named(change: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        Settings.from_env(LEAST | change)


@pytest.mark.parametrize(
    ("content", "limit"), [("150000 100000", 1.5), ("max 100000", 64.0), ("garbage", 64.0), (None, 64.0)]
)
def test_cpu_limit(content: str | None, limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64))
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert cpu_limit(tmp_path) == limit


@pytest.mark.parametrize(("quota", "limit"), [("150000\n", 1.5), ("-1\n", 64.0)])
def test_cpu_limit_of_the_first_version_of_cgroups(
    quota: str, limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64))
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu_limit(tmp_path) == limit


def test_process_environment_keeps_what_is_set_but_never_calls_home() -> None:
    settings = Settings.from_env(LEAST | {"LAKELOOP_WORKERS": "2"})
    found = process_environment(settings, {"OMP_NUM_THREADS": "7", "MLFLOW_DISABLE_TELEMETRY": "false"}, 5.0)
    assert "OMP_NUM_THREADS" not in found
    assert found["OPENBLAS_NUM_THREADS"] == "2"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert found["HOME"] == "/tmp"
