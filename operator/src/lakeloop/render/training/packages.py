"""`spec.dependencies.pip`, checked before a driver is started for it; the driver reads it with pip's own grammar."""

import re
from collections.abc import Sequence
from typing import Final

from lakeloop.render.errors import InvalidConf

_PINNED: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*===?\s*[A-Za-z0-9][A-Za-z0-9.!+_-]*\s*(?:;.*)?"
)


def requirements(written: Sequence[str]) -> list[str]:
    """The requirements as they are. Raises InvalidConf for one that does not name one version."""
    for index, line in enumerate(written):
        if not _PINNED.fullmatch(line.strip()):
            raise InvalidConf(
                f"spec.dependencies.pip[{index}]", "write a package and its version, as in lightgbm==4.6.0"
            )
    return list(written)
