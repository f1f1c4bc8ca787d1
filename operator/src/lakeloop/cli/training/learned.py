"""What a model learned, apart from when and where it was saved: pure.

The digest that is registered with a model is over its files as they are. No two trainings have the same one: `MLmodel`
names the run and the time, a skops archive holds times and the addresses that objects had in memory, a Spark ML model
random names. The digest here is over the same files with just that left out, so that equal ones mean: the same
coefficients, trees and signature, to the last bit.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import yaml

OF_THE_RUN = frozenset({"run_id", "model_uuid", "model_id", "utc_time_created", "artifact_path", "model_size_bytes"})
"""Keys of `MLmodel` that say which run saved it, when and where."""
LEFT_OUT = frozenset({"registered_model_meta"})
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SPARK_UID = re.compile(r"(?<=[A-Za-z]_)[0-9a-f]{12}(?![0-9a-f])")


def digest(files: Mapping[str, bytes]) -> str:
    """`sha256:…` over what the files say of the learned model."""
    total = hashlib.sha256()
    for name, of_file in sorted(learned_files(files).items()):
        total.update(f"{name}\0{of_file}\n".encode())
    return f"sha256:{total.hexdigest()}"


def learned_files(files: Mapping[str, bytes]) -> dict[str, str]:
    """Each file's name and hash, without what is of the run alone. Checksum files of Hadoop repeat what others say."""
    return {
        plain_name(name): hashlib.sha256(_learned(name, content)).hexdigest()
        for name, content in files.items()
        if name.rpartition("/")[2] not in LEFT_OUT and not name.endswith(".crc")
    }


def different(recorded: Mapping[str, bytes], again: Mapping[str, bytes]) -> list[str]:
    """The files whose learned part is not the same, or which only one of the two has."""
    a, b = learned_files(recorded), learned_files(again)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def plain_name(name: str) -> str:
    """A file's name without what is random in those of Spark."""
    return _SPARK_UID.sub("*", _UUID.sub("*", name))


def _learned(name: str, content: bytes) -> bytes:
    base = name.rpartition("/")[2]
    try:
        if base == "MLmodel":
            return _description(content)
        if base.endswith(".skops"):
            return _archive(content)
        if "/metadata/part-" in f"/{name}":
            return _spark_metadata(content)
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, zipfile.BadZipFile):
        pass  # not what its name says: compared as it is
    return content


def _description(content: bytes) -> bytes:
    found = yaml.safe_load(content)
    return _json({key: value for key, value in found.items() if key not in OF_THE_RUN})


def _archive(content: bytes) -> bytes:
    """A skops archive: its schema with objects numbered in their order in place of addresses, and its arrays."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop("schema.json"))
    numbers: dict[str, int] = {}
    arrays: dict[str, str] = {}

    def numbered(value: Any) -> Any:
        if isinstance(value, list):
            return [numbered(each) for each in value]
        if not isinstance(value, dict):
            return value
        plain: dict[str, Any] = {}
        for key, each in value.items():
            if key == "__id__":
                plain[key] = numbers.setdefault(str(each), len(numbers))
            elif key == "file" and each in members:
                stem, dot, ending = each.rpartition(".")
                name = f"{numbers.setdefault(stem, len(numbers))}{dot}{ending}"
                arrays[name] = hashlib.sha256(members[each]).hexdigest()
                plain[key] = name
            else:
                plain[key] = numbered(each)
        return plain

    return _json({"schema": numbered(schema), "arrays": arrays})


def _spark_metadata(content: bytes) -> bytes:
    lines = [json.loads(_SPARK_UID.sub("*", line)) for line in content.decode().splitlines() if line]
    return _json([{key: value for key, value in line.items() if key != "timestamp"} for line in lines])


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
