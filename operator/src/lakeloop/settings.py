"""The operator's own settings, from `LAKELOOP_*` environment variables.

The list of variables is in `docs/design/2026-11-24-contracts-between-the-parts.md`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

ServiceType = Literal["ClusterIP", "NodePort"]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
LogFormat = Literal["json", "text"]

_T = TypeVar("_T")


class SettingsError(ValueError):
    """A variable is missing or wrong. The message names it, says what was found and what to write."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator is told by its environment. Durations are in seconds."""

    namespace: str
    """The operator's own: its Lease is there."""
    pod_name: str
    watch_namespaces: tuple[str, ...]
    """Empty = all."""
    tracking_uri: str
    tracking_ui_url: str
    """Base of the links in status."""
    storage_endpoint: str | None
    storage_region: str
    storage_path_style: bool
    storage_ca_file: Path | None
    storage_warehouse: str | None
    trainer_image: str
    server_image: str
    image_pull_policy: PullPolicy
    server_service_type: ServiceType
    webhook_url: str | None
    webhook_secret_file: Path | None
    registry_resync_seconds: float
    delta_poll_seconds: float
    """Between looks at the log of a table that a trigger follows."""
    log_level: str
    log_format: LogFormat
    http_port: int
    leader_election: bool
    workers: int
    """Reconciles at the same time."""
    storage_ca: str | None = None
    """The certificates in `storage_ca_file`, PEM; read by `main`."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Raises SettingsError for the first variable that is missing or wrong. An empty value counts as not set."""
        read = _Reader(env)
        tracking_uri = read.url("LAKELOOP_TRACKING_URI")
        webhook_url = read.optional("LAKELOOP_WEBHOOK_URL", read.url)
        secret_file = read.optional("LAKELOOP_WEBHOOK_SECRET_FILE", read.path)
        if webhook_url and not secret_file:
            raise SettingsError(
                "LAKELOOP_WEBHOOK_SECRET_FILE",
                "not set, while LAKELOOP_WEBHOOK_URL is; name the file with the secret that MLflow signs with",
            )
        return cls(
            namespace=read.text("LAKELOOP_NAMESPACE"),
            pod_name=read.text("LAKELOOP_POD_NAME"),
            watch_namespaces=read.names("LAKELOOP_WATCH_NAMESPACES"),
            tracking_uri=tracking_uri,
            tracking_ui_url=read.optional("LAKELOOP_TRACKING_UI_URL", read.url) or tracking_uri,
            storage_endpoint=read.optional("LAKELOOP_STORAGE_ENDPOINT", read.url),
            storage_region=read.text("LAKELOOP_STORAGE_REGION", "us-east-1"),
            storage_path_style=read.boolean("LAKELOOP_STORAGE_PATH_STYLE", "true"),
            storage_ca_file=read.optional("LAKELOOP_STORAGE_CA_FILE", read.path),
            storage_warehouse=read.optional("LAKELOOP_STORAGE_WAREHOUSE", read.s3_uri),
            trainer_image=read.text("LAKELOOP_TRAINER_IMAGE"),
            server_image=read.text("LAKELOOP_SERVER_IMAGE"),
            image_pull_policy=read.pull_policy("LAKELOOP_IMAGE_PULL_POLICY", "IfNotPresent"),
            server_service_type=read.service_type("LAKELOOP_SERVER_SERVICE_TYPE", "ClusterIP"),
            webhook_url=webhook_url,
            webhook_secret_file=secret_file,
            registry_resync_seconds=read.number("LAKELOOP_REGISTRY_RESYNC_SECONDS", "60", least=1, most=86_400),
            delta_poll_seconds=read.number("LAKELOOP_DELTA_POLL_SECONDS", "4", least=1, most=3_600),
            log_level=read.log_level("LAKELOOP_LOG_LEVEL", "INFO"),
            log_format=read.log_format("LAKELOOP_LOG_FORMAT", "json"),
            http_port=int(read.number("LAKELOOP_HTTP_PORT", "8080", least=0, most=65_535, whole=True)),
            leader_election=read.boolean("LAKELOOP_LEADER_ELECTION", "true"),
            workers=int(read.number("LAKELOOP_WORKERS", "16", least=1, most=64, whole=True)),
        )


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, variable: str, default: str | None = None) -> str:
        value = self._env.get(variable, "").strip() or default
        if value is None:
            raise SettingsError(variable, "not set; the operator cannot start without it")
        return value

    def optional(self, variable: str, read: Callable[[str], _T]) -> _T | None:
        return read(variable) if self._env.get(variable, "").strip() else None

    def names(self, variable: str) -> tuple[str, ...]:
        parts = [part.strip() for part in self._env.get(variable, "").split(",")]
        return tuple(dict.fromkeys(part for part in parts if part))

    def url(self, variable: str) -> str:
        value = self.text(variable).rstrip("/")
        try:
            parts = urlsplit(value)
            parts.port  # noqa: B018 (raises for one that is none)
        except ValueError as error:
            raise SettingsError(
                variable, f"found {_hide(value)!r}: {error}; write an http:// or https:// URL"
            ) from None
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SettingsError(variable, f"found {_hide(value)!r}; write an http:// or https:// URL")
        if parts.username or parts.password:
            raise SettingsError(variable, "holds credentials; put them into a Secret, not into a URL")
        return value

    def s3_uri(self, variable: str) -> str:
        value = self.text(variable).rstrip("/")
        if not value.startswith("s3a://") or not value.removeprefix("s3a://"):
            raise SettingsError(variable, f"found {value!r}; write s3a://<bucket>/<path>")
        return value

    def path(self, variable: str) -> Path:
        return Path(self.text(variable))

    def boolean(self, variable: str, default: str) -> bool:
        return self._choice(variable, default, {"true": True, "false": False}, fold=True)

    def pull_policy(self, variable: str, default: PullPolicy) -> PullPolicy:
        choices: dict[str, PullPolicy] = {"Always": "Always", "IfNotPresent": "IfNotPresent", "Never": "Never"}
        return self._choice(variable, default, choices)

    def service_type(self, variable: str, default: ServiceType) -> ServiceType:
        choices: dict[str, ServiceType] = {"ClusterIP": "ClusterIP", "NodePort": "NodePort"}
        return self._choice(variable, default, choices)

    def log_format(self, variable: str, default: LogFormat) -> LogFormat:
        choices: dict[str, LogFormat] = {"json": "json", "text": "text"}
        return self._choice(variable, default, choices)

    def log_level(self, variable: str, default: str) -> str:
        levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        return self._choice(variable, default, {level.lower(): level for level in levels}, fold=True)

    def number(self, variable: str, default: str, *, least: float, most: float, whole: bool = False) -> float:
        value = self.text(variable, default)
        wanted = f"write a {'whole ' if whole else ''}number from {least:g} to {most:g}"
        try:
            number = float(int(value)) if whole else float(value)
        except ValueError:
            raise SettingsError(variable, f"found {value!r}; {wanted}") from None
        if not least <= number <= most:
            raise SettingsError(variable, f"found {value!r}; {wanted}")
        return number

    def _choice(self, variable: str, default: str, choices: Mapping[str, _T], *, fold: bool = False) -> _T:
        value = self.text(variable, default)
        found = choices.get(value.lower() if fold else value)
        if found is None:
            raise SettingsError(variable, f"found {value!r}; write one of {', '.join(choices)}")
        return found


def _hide(url: str) -> str:
    """The URL without what stands before an @, which may be a password."""
    return url.rpartition("@")[2]


def numeric_level(settings: Settings) -> int:
    """The level for `logging`."""
    return logging.getLevelNamesMapping()[settings.log_level]
