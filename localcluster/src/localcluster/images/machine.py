"""How this machine reaches package registries, as the secrets of a build: proxies' CA, pip's and apt's configuration.

The Dockerfiles mount them, where they are given, in the steps that fetch something; ``images/README.md`` lists them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

SECRETS = Path("/run/secrets")
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_PASSED_ON = re.compile(
    r"^(PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST)|UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL)"
    r"|GO(PROXY|SUMDB|NOSUMDB|PRIVATE))$"
)
# Only how apt fetches, not what else this machine's apt does.
_ACQUIRE = re.compile(r'^Acquire::(http|https|Check-\S+|Retries|ForceIPv4|ForceIPv6)\b\S* ".+";$')


def network(environment: Mapping[str, str], given: Iterable[str]) -> str:
    """A shell file of exports: variables that are set here, and the paths of those other secrets that are ``given``."""
    values = {name: value for name, value in environment.items() if _PASSED_ON.match(name) and value}
    given = set(given)
    if "ca" in given:
        values |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), str(SECRETS / "ca"))
    if "pip" in given:
        values["PIP_CONFIG_FILE"] = str(SECRETS / "pip")
    if "apt" in given:
        values["APT_CONFIG"] = str(SECRETS / "apt")
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))


def apt(dump: str, given: Iterable[str]) -> str:
    """apt's configuration for a build: to fetch as this machine's ``apt-config dump`` says, by which CA and sources."""
    given = set(given)
    # apt's sandbox user could not read the secrets.
    lines = [line for line in dump.splitlines() if _ACQUIRE.match(line)] + ['APT::Sandbox::User "root";']
    if "ca" in given:
        lines.append(f'Acquire::https::CAInfo "{SECRETS}/ca";')
    if "sources" in given:
        lines += ['Dir::Etc::SourceList "/dev/null";', f'Dir::Etc::SourceParts "{SECRETS}/sources.d";']
    return "\n".join(lines) + "\n"


def sources(text: str) -> str:
    """apt sources in the deb822 format, which one-line sources are turned into (``sources.list(5)``)."""
    if not re.search(r"^deb(-src)?\s", text, re.MULTILINE):
        return text
    stanzas = []
    for line in text.splitlines():
        match = re.match(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>[^#]+)", line)
        if match is None:
            continue
        stanza = {"Types": "deb", "URIs": match["uri"], "Suites": match["suite"], "Components": match["rest"].strip()}
        for option in (match["options"] or "").split():
            name, _, value = option.partition("=")
            stanza[{"signed-by": "Signed-By", "trusted": "Trusted"}.get(name, name.capitalize())] = value
        stanzas.append("".join(f"{key}: {value}\n" for key, value in stanza.items()))
    return "\n".join(stanzas)


def write_secrets(folder: Path, environment: Mapping[str, str], debian_sources: str | None) -> dict[str, Path]:
    """Writes this machine's secrets into ``folder`` (only its owner reads it); id → file.

    ``debian_sources``: the machine's apt sources where the base is a Debian of this machine's making, else None.
    """
    folder.chmod(0o700)
    found: dict[str, Path] = {}
    bundle = Path(environment.get("SSL_CERT_FILE") or _CA_BUNDLE)
    if bundle.is_file():
        found["ca"] = bundle
    home = Path(environment.get("HOME", "/root"))
    candidates = [home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")]
    if environment.get("PIP_CONFIG_FILE"):
        candidates.insert(0, Path(environment["PIP_CONFIG_FILE"]))
    if pip := next((path for path in candidates if path.is_file()), None):
        found["pip"] = pip

    def write(name: str, text: str) -> None:
        found[name] = folder / name
        found[name].write_text(text)

    if debian_sources is not None:
        write("sources", sources(debian_sources))
    dump = ""
    if shutil.which("apt-config"):
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    write("apt", apt(dump, found))
    write("network", network(environment, found))
    return found
