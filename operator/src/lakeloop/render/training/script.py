"""A script's files: copied out of the user's ConfigMap into the run's own, so that every attempt sees the same."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lakeloop.api.v1alpha1.common import EnvVar
from lakeloop.render.errors import InvalidConf, ScriptTooLarge

MOUNT: Final = "/etc/lakeloop-script"
FIELD: Final = "spec.script.configMapRef"
VOLUME: Final = "script"
MOST_BYTES: Final = 1 << 20
"""What Kubernetes takes of one ConfigMap."""
ARCHIVES: Final = (".zip", ".tar.gz", ".tgz", ".tar")
"""Endings of keys that the driver unpacks."""
_PREFIX: Final = "script."
_LONGEST_KEY: Final = 253
_RESERVED: Final = frozenset(
    {"HOME", "JAVA_HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "PYTHONHOME", "PYTHONPATH", "SPARK_HOME"}
)
_RESERVED_PREFIXES: Final = ("LAKELOOP_", "PYSPARK_", "SPARK_")


@dataclass(frozen=True, slots=True)
class ScriptFiles:
    """Keys of a ConfigMap with what they hold."""

    text: Mapping[str, str]
    binary: Mapping[str, str]
    """Base64, as Kubernetes has it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All keys, sorted."""
        return tuple(sorted({*self.text, *self.binary}))

    def holds(self, path: str) -> bool:
        """Whether the path is a key, or may be in an archive that is one."""
        return path in self.names or any(name.lower().endswith(ARCHIVES) for name in self.names)

    def digest(self) -> str:
        """`sha256:` and the hex SHA-256 over a line `<key>\\0<hex sha256 of its content>\\n` of each."""
        total = hashlib.sha256()
        for name in self.names:
            content = self.text[name].encode() if name in self.text else base64.b64decode(self.binary[name])
            total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        return f"sha256:{total.hexdigest()}"


def files_of(config_map: Mapping[str, Any]) -> ScriptFiles:
    """All that the user's ConfigMap holds."""
    return ScriptFiles(dict(config_map.get("data") or {}), dict(config_map.get("binaryData") or {}))


def pinned_files(config_map: Mapping[str, Any]) -> ScriptFiles | None:
    """Those that a run's ConfigMap holds for it; None where it has none."""

    def own(part: str) -> dict[str, str]:
        found: Mapping[str, str] = config_map.get(part) or {}
        return {key.removeprefix(_PREFIX): value for key, value in found.items() if key.startswith(_PREFIX)}

    files = ScriptFiles(own("data"), own("binaryData"))
    return files if files.names else None


def with_script(config_map: Mapping[str, Any], files: ScriptFiles | None) -> dict[str, Any]:
    """The run's ConfigMap with the files in it. Raises ScriptTooLarge."""
    if files is None:
        return dict(config_map)
    data = {**(config_map.get("data") or {}), **{_key(name): value for name, value in files.text.items()}}
    binary = {**(config_map.get("binaryData") or {}), **{_key(name): value for name, value in files.binary.items()}}
    size = sum(len(value.encode()) for value in data.values())
    size += sum(len(value) * 3 // 4 for value in binary.values())
    if size > MOST_BYTES:
        told = f"the files and the run's own settings take {size >> 10} KiB, and a ConfigMap holds {MOST_BYTES >> 10}"
        raise ScriptTooLarge(
            FIELD, f"{told}: put an archive into the object store, and its address into spec.script.uri"
        )
    return {**config_map, "data": data, **({"binaryData": binary} if binary else {})}


def _key(name: str) -> str:
    if len(_PREFIX + name) > _LONGEST_KEY:
        raise ScriptTooLarge(FIELD, f"the key {name[:40]}… is longer than {_LONGEST_KEY - len(_PREFIX)} letters")
    return f"{_PREFIX}{name}"


def script_volume(config_map: str, files: ScriptFiles) -> dict[str, Any]:
    """The volume with the files, under their own names."""
    items = [{"key": _key(name), "path": name} for name in files.names]
    return {"name": VOLUME, "configMap": {"name": config_map, "items": items}}


def script_mount() -> dict[str, Any]:
    """Where the driver finds them."""
    return {"name": VOLUME, "mountPath": MOUNT, "readOnly": True}


def script_env(variables: tuple[EnvVar, ...], taken: frozenset[str]) -> list[dict[str, Any]]:
    """The script's own variables. `taken`: those that the operator sets. Raises InvalidConf."""
    for index, variable in enumerate(variables):
        if variable.name in taken | _RESERVED or variable.name.startswith(_RESERVED_PREFIXES):
            message = f"{variable.name} is set by Lakeloop: choose another name"
            raise InvalidConf(f"spec.script.env[{index}].name", message)
    return [variable.wire() for variable in variables]
