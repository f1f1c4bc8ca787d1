"""What only loading a Delta table tells, by `deltalake`; a program too, for a CA of the table's own.

`python -m lakeloop.adapters.delta_loading` reads `{"uri", "options", "appIds"}` from its standard input, where no other
process sees the credentials, and prints `{"appIds", "properties"}`.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lakeloop.adapters.object_store_protocol import StorageAccess, StorageUnavailable

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the table told."""

    app_ids: frozenset[str] = frozenset()
    """Those of the ids asked for whose transactions the log knows."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """The table's properties as they are now."""


async def load(access: StorageAccess, uri: str, app_ids: Collection[str] = ()) -> Loaded:
    """Loads the table. Raises StorageUnavailable where that cannot be done, or takes too long."""
    work = load_apart if access.ca else _load_here
    try:
        return await asyncio.wait_for(work(access, uri, app_ids), _SECONDS)
    except Exception as error:  # deltalake's errors have no common base below Exception
        raise StorageUnavailable(f"the log of {uri} cannot be read: {str(error) or type(error).__name__}") from error


async def _load_here(access: StorageAccess, uri: str, app_ids: Collection[str]) -> Loaded:
    return await asyncio.to_thread(_load, uri, storage_options(access), app_ids)


async def load_apart(access: StorageAccess, uri: str, app_ids: Collection[str]) -> Loaded:
    """In a process of its own: deltalake takes a CA from the environment alone, and one object's is no other's."""
    with tempfile.NamedTemporaryFile("w", prefix="ca-", suffix=".pem", encoding="ascii") as ca:
        ca.write(access.ca or "")
        ca.flush()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lakeloop.adapters.delta_loading",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SSL_CERT_FILE": ca.name},
        )
        asked = {"uri": uri, "options": storage_options(access), "appIds": sorted(app_ids)}
        try:
            told, failed = await process.communicate(json.dumps(asked).encode())
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise StorageUnavailable(failed.decode(errors="replace").strip()[-500:] or f"exit {process.returncode}")
        found = json.loads(told)
        return Loaded(frozenset(found["appIds"]), found["properties"])


def _load(uri: str, options: Mapping[str, str], app_ids: Collection[str]) -> Loaded:
    from deltalake import DeltaTable  # tens of megabytes that most operators never need

    table = DeltaTable(uri, storage_options=dict(options))
    known = frozenset(app_id for app_id in app_ids if table.transaction_version(app_id) is not None)
    return Loaded(known, dict(table.metadata().configuration))


def storage_options(access: StorageAccess) -> dict[str, Any]:
    """The options of deltalake's object store for these credentials."""
    options = {
        "aws_access_key_id": access.access_key,
        "aws_secret_access_key": access.secret_key,
        "aws_region": access.region,
        "aws_virtual_hosted_style_request": "false" if access.path_style else "true",
        "connect_timeout": "5s",
        "timeout": "20s",
    }
    if access.session_token:
        options["aws_session_token"] = access.session_token
    if access.endpoint:
        options["aws_endpoint"] = access.endpoint
        options["aws_allow_http"] = "true" if access.endpoint.startswith("http://") else "false"
    return options


def main() -> None:
    """Exit code 1 and deltalake's message where the table cannot be read."""
    asked = json.load(sys.stdin)
    try:
        found = _load(asked["uri"], asked["options"], asked["appIds"])
    except Exception as error:  # deltalake's errors have no common base below Exception
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(json.dumps({"appIds": sorted(found.app_ids), "properties": dict(found.properties)}))


if __name__ == "__main__":
    main()
