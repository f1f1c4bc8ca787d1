"""The environment of the process, read once and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TRUE = {"true", "1", "yes"}
_FALSE = {"false", "0", "no", ""}


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """What the operator gives a server (docs/design: contracts between the parts). Times in seconds, sizes in bytes."""

    model_name: str
    model_version: str
    model_uri: str
    model_digest: str = ""
    signature_required: bool = True
    workers: int = 1
    max_body_bytes: int = 16 * 1024 * 1024
    drain_seconds: float = 20.0
    drain_least_seconds: float = 0.0
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before it runs
    port: int = 8080
    threads: int = 2
    max_queue: int = 128
    request_timeout_seconds: float = 60.0
    batch_max_size: int = 64
    batch_max_delay_seconds: float = 0.0
    model_dir: Path = Path("/model")
    termination_log: Path = Path("/dev/termination-log")
    s3_endpoint: str = ""
    s3_addressing_style: str = "auto"

    @property
    def model(self) -> str:
        """`name/version`, as answers carry it."""
        return f"{self.model_name}/{self.model_version}"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Reads `LAKELOOP_*` and the S3 endpoint; raises SettingsError for a variable that is missing or unusable."""
        style = env.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "auto")
        if style not in ("auto", "path", "virtual"):
            raise SettingsError(f"MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE is {style!r}: write auto, path or virtual")
        digest = env.get("LAKELOOP_MODEL_DIGEST", "")
        if digest and not (digest.startswith("sha256:") and len(digest) == 71):
            raise SettingsError(f"LAKELOOP_MODEL_DIGEST is {digest!r}: write sha256:<64 hex digits>, or leave it empty")
        return cls(
            model_name=_text(env, "LAKELOOP_MODEL_NAME"),
            model_version=_text(env, "LAKELOOP_MODEL_VERSION"),
            model_uri=_text(env, "LAKELOOP_MODEL_URI", any_text=True),
            model_digest=digest,
            signature_required=_flag(env, "LAKELOOP_SIGNATURE_REQUIRED", True),
            workers=_number(env, "LAKELOOP_WORKERS", 1, 1, 64),
            max_body_bytes=_number(env, "LAKELOOP_MAX_BODY_BYTES", 16 * 1024 * 1024, 1, 2**40),
            drain_seconds=_number(env, "LAKELOOP_DRAIN_SECONDS", 20, 0, 3600),
            drain_least_seconds=_number(env, "LAKELOOP_DRAIN_LEAST_SECONDS", 0, 0, 3600),
            host=env.get("LAKELOOP_HOST") or cls.host,
            port=_number(env, "LAKELOOP_PORT", 8080, 0, 65535),
            threads=_number(env, "LAKELOOP_THREADS", 2, 1, 256),
            max_queue=_number(env, "LAKELOOP_MAX_QUEUE", 128, 0, 100_000),
            request_timeout_seconds=_number(env, "LAKELOOP_REQUEST_TIMEOUT_SECONDS", 60, 1, 3600),
            batch_max_size=_number(env, "LAKELOOP_BATCH_MAX_SIZE", 64, 1, 100_000),
            batch_max_delay_seconds=_milliseconds(env, "LAKELOOP_BATCH_MAX_DELAY_MS", 60_000) / 1000,
            model_dir=Path(env.get("LAKELOOP_MODEL_DIR") or "/model"),
            termination_log=Path(env.get("LAKELOOP_TERMINATION_LOG") or "/dev/termination-log"),
            s3_endpoint=env.get("MLFLOW_S3_ENDPOINT_URL") or env.get("AWS_ENDPOINT_URL_S3") or "",
            s3_addressing_style=style,
        )


def _text(env: Mapping[str, str], name: str, any_text: bool = False) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set")
    if not any_text and not (value.isascii() and value.isprintable()):
        raise SettingsError(f"{name} is {value!r}: write printable ASCII, since it goes into a header")
    return value


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    value = env.get(name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise SettingsError(f"{name} is {value!r}: write true or false")


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    raw = env.get(name, "").strip()
    if not raw:
        return default
    try:
        value = int(raw)
    except ValueError:
        raise SettingsError(f"{name} is {raw!r}: write a whole number from {low} to {high}") from None
    if not low <= value <= high:
        raise SettingsError(f"{name} is {value}: write a whole number from {low} to {high}")
    return value


def _milliseconds(env: Mapping[str, str], name: str, high: int) -> float:
    raw = env.get(name, "").strip()
    try:
        value = float(raw or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= high:
        raise SettingsError(f"{name} is {raw!r}: write milliseconds from 0 to {high}")
    return value


def cpu_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs that this process may use: the container's quota (cgroup v2 or v1), else those of the machine."""
    cpus = float(len(os.sched_getaffinity(0)))
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
            # "max", or -1, is no quota
            return min(cpus, int(quota) / int(period)) if quota not in ("max", "-1") else cpus
        except (OSError, ValueError):
            continue
    return cpus


def process_environment(settings: Settings, env: Mapping[str, str], cpus: float) -> dict[str, str]:
    """Variables to set before numpy, scikit-learn or MLflow is imported; what the user has set stays.

    The root file system is read-only, so that every cache goes under `TMPDIR`; MLflow must call nobody.
    """
    tmp = env.get("TMPDIR") or "/tmp"  # noqa: S108 - an emptyDir of the pod's own
    native_threads = str(max(1, int(cpus // settings.workers)))
    wanted = {
        "TMPDIR": tmp,
        "HOME": tmp,
        "MPLCONFIGDIR": f"{tmp}/matplotlib",
        "XDG_CACHE_HOME": f"{tmp}/cache",
        "JOBLIB_TEMP_FOLDER": tmp,
        "MLFLOW_TRACKING_URI": f"file://{tmp}/no-tracking",
        "OMP_NUM_THREADS": native_threads,
        "OPENBLAS_NUM_THREADS": native_threads,
    }
    forced = {
        "HOME": tmp,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # What `mlflow models serve` sets, so that a model sees the same environment
        "_MLFLOW_IS_IN_SERVING_ENVIRONMENT": "true",
    }
    return {key: value for key, value in wanted.items() if key not in env} | forced
