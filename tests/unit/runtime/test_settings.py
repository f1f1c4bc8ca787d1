"""Settings from the environment, and what a wrong one is told."""

from pathlib import Path

import pytest

from lakeloop.main import webhook_secret, with_storage_ca
from lakeloop.settings import Settings, SettingsError

NEEDED = {
    "LAKELOOP_NAMESPACE": "lakeloop-system",
    "LAKELOOP_POD_NAME": "lakeloop-operator-0",
    "LAKELOOP_TRACKING_URI": "http://mlflow:5000/",
    "LAKELOOP_TRAINER_IMAGE": "trainer:1",
    "LAKELOOP_SERVER_IMAGE": "server:1",
}


def test_defaults() -> None:
    settings = Settings.from_env(NEEDED)
    assert settings.tracking_uri == settings.tracking_ui_url == "http://mlflow:5000"
    assert settings.watch_namespaces == ()
    assert settings.storage_path_style is True
    assert settings.image_pull_policy == "IfNotPresent"
    assert settings.server_service_type == "ClusterIP"
    assert (settings.registry_resync_seconds, settings.http_port, settings.workers) == (60, 8080, 16)
    assert settings.delta_poll_seconds == 4
    assert settings.leader_election is True
    assert settings.webhook_url is None


def test_empty_counts_as_not_set() -> None:
    settings = Settings.from_env({**NEEDED, "LAKELOOP_WEBHOOK_URL": "", "LAKELOOP_STORAGE_ENDPOINT": " "})
    assert settings.webhook_url is None
    assert settings.storage_endpoint is None


def test_values() -> None:
    settings = Settings.from_env(
        {
            **NEEDED,
            "LAKELOOP_WATCH_NAMESPACES": "team-a, team-b,,team-a",
            "LAKELOOP_WEBHOOK_URL": "http://operator:8080/webhooks/mlflow",
            "LAKELOOP_WEBHOOK_SECRET_FILE": "/etc/lakeloop/secret",
            "LAKELOOP_LOG_LEVEL": "debug",
            "LAKELOOP_LEADER_ELECTION": "False",
        }
    )
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.webhook_secret_file == Path("/etc/lakeloop/secret")
    assert settings.log_level == "DEBUG"
    assert settings.leader_election is False


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        pytest.param("LAKELOOP_NAMESPACE", "", "not set", id="needed"),
        pytest.param("LAKELOOP_TRACKING_URI", "mlflow:5000", "write an http:// or https:// URL", id="no-scheme"),
        pytest.param("LAKELOOP_STORAGE_ENDPOINT", "http://[::1", "write an http:// or https:// URL", id="bracket"),
        pytest.param("LAKELOOP_STORAGE_ENDPOINT", "http://x:99999", "write an http:// or https:// URL", id="port"),
        pytest.param("LAKELOOP_TRACKING_URI", "http://me:hush@mlflow", "holds credentials", id="credentials"),
        pytest.param("LAKELOOP_STORAGE_WAREHOUSE", "/lake", "write s3a://<bucket>/<path>", id="warehouse"),
        pytest.param("LAKELOOP_STORAGE_PATH_STYLE", "yes", "one of true, false", id="boolean"),
        pytest.param("LAKELOOP_REGISTRY_RESYNC_SECONDS", "0", "from 1 to 86400", id="too-small"),
        pytest.param("LAKELOOP_DELTA_POLL_SECONDS", "0.2", "from 1 to 3600", id="too-often"),
        pytest.param("LAKELOOP_HTTP_PORT", "80.5", "a whole number from 0 to 65535", id="not-whole"),
        pytest.param("LAKELOOP_HTTP_PORT", "99999", "a whole number from 0 to 65535", id="too-large"),
        pytest.param("LAKELOOP_IMAGE_PULL_POLICY", "Sometimes", "one of Always, IfNotPresent, Never", id="pull"),
        pytest.param("LAKELOOP_LOG_FORMAT", "xml", "one of json, text", id="format"),
    ],
)
def test_wrong_value_is_named(variable: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**NEEDED, variable: value})
    assert caught.value.variable == variable
    assert str(caught.value).startswith(f"{variable}: ")
    assert told in str(caught.value)
    assert "hush" not in str(caught.value)


PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_the_stores_ca_is_read_for_pods(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    settings = Settings.from_env({**NEEDED, "LAKELOOP_STORAGE_CA_FILE": str(file)})
    for content, told in ((None, "cannot read"), ("none here", "no certificate in PEM form"), (PEM * 9999, "bytes")):
        if content is not None:
            file.write_text(content)
        with pytest.raises(SettingsError, match=told) as caught:
            with_storage_ca(settings)
        assert caught.value.variable == "LAKELOOP_STORAGE_CA_FILE"
    file.write_text(f"# ours\n{PEM}")
    assert with_storage_ca(settings).storage_ca == PEM
    assert with_storage_ca(Settings.from_env(NEEDED)).storage_ca is None


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot read"), (b" \n", "is empty"), (b"\xff\xfe", "is not text")]
)
def test_a_webhook_secret_that_is_none(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    names = {"LAKELOOP_WEBHOOK_URL": "http://operator/webhooks/mlflow", "LAKELOOP_WEBHOOK_SECRET_FILE": str(file)}
    with pytest.raises(SettingsError, match=told):
        webhook_secret(Settings.from_env({**NEEDED, **names}))


def test_webhook_without_secret_file() -> None:
    with pytest.raises(SettingsError, match=r"^LAKELOOP_WEBHOOK_SECRET_FILE: not set"):
        Settings.from_env({**NEEDED, "LAKELOOP_WEBHOOK_URL": "http://operator/webhooks/mlflow"})
