"""What a machine lends to builds: the secrets' contents."""

from pathlib import Path

import pytest

from localcluster.images import machine

DUMP = """APT "";
APT::Periodic::Update-Package-Lists "1";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy:3128";
Acquire::Check-Valid-Until "false";
Acquire::Changelogs::AlwaysOnline "true";
DPkg::Post-Invoke:: "touch /var/run/x";
"""


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        pytest.param({}, [], "", id="nothing special"),
        pytest.param(
            {
                "PIP_INDEX_URL": "https://m/simple",
                "GOPROXY": "https://g",
                "AWS_SECRET_ACCESS_KEY": "s",
                "PIP_CERT": "/x",
            },
            [],
            "export GOPROXY=https://g\nexport PIP_INDEX_URL=https://m/simple\n",
            id="mirrors pass, other variables do not",
        ),
        pytest.param({"UV_DEFAULT_INDEX": "https://a b"}, [], "export UV_DEFAULT_INDEX='https://a b'\n", id="quoted"),
        pytest.param(
            {},
            ["ca", "pip", "apt"],
            "export APT_CONFIG=/run/secrets/apt\nexport PIP_CERT=/run/secrets/ca\n"
            "export PIP_CONFIG_FILE=/run/secrets/pip\nexport REQUESTS_CA_BUNDLE=/run/secrets/ca\n"
            "export SSL_CERT_FILE=/run/secrets/ca\n",
            id="paths of what is mounted",
        ),
    ],
)
def test_network(environment: dict[str, str], given: list[str], expected: str) -> None:
    assert machine.network(environment, given) == expected


def test_apt_fetches_as_the_machine_does_and_runs_none_of_its_hooks() -> None:
    assert machine.apt(DUMP, ["ca", "sources"]).splitlines() == [
        'Acquire::http::Proxy "http://proxy:3128";',
        'Acquire::Check-Valid-Until "false";',
        'APT::Sandbox::User "root";',
        'Acquire::https::CAInfo "/run/secrets/ca";',
        'Dir::Etc::SourceList "/dev/null";',
        'Dir::Etc::SourceParts "/run/secrets/sources.d";',
    ]


def test_apt_elsewhere_keeps_the_sources_of_the_base() -> None:
    assert machine.apt("", []) == 'APT::Sandbox::User "root";\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Types: deb\nURIs: http://m\n", "Types: deb\nURIs: http://m\n", id="deb822 stays"),
        pytest.param(
            "# c\ndeb [signed-by=/k.gpg trusted=yes] http://m/debian bookworm main contrib # c\n"
            "deb-src http://m s main\n",
            "Types: deb\nURIs: http://m/debian\nSuites: bookworm\nComponents: main contrib\n"
            "Signed-By: /k.gpg\nTrusted: yes\n",
            id="one line with options",
        ),
        pytest.param(
            "deb http://a x main\ndeb http://b y main\n",
            "Types: deb\nURIs: http://a\nSuites: x\nComponents: main\n\n"
            "Types: deb\nURIs: http://b\nSuites: y\nComponents: main\n",
            id="two lines",
        ),
    ],
)
def test_sources(text: str, expected: str) -> None:
    assert machine.sources(text) == expected


def test_written_for_the_owner_alone(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    folder = tmp_path / "secrets"
    folder.mkdir()
    home = tmp_path / "home"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[global]\n")
    found = machine.write_secrets(folder, {"SSL_CERT_FILE": str(bundle), "HOME": str(home)}, "deb http://a x main")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert found["ca"] == bundle
    assert found["pip"] == home / ".config/pip/pip.conf"
    assert found["sources"].read_text().startswith("Types: deb\nURIs: http://a\n")
    assert "export SSL_CERT_FILE=/run/secrets/ca\n" in found["network"].read_text()
    assert 'Dir::Etc::SourceParts "/run/secrets/sources.d";' in found["apt"].read_text()
