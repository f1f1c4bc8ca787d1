"""Whether an object in the cluster is as we would write it, so that nothing is written for nothing."""

from collections.abc import Mapping
from typing import Any, Final

EXACT: Final = frozenset({"selector", "matchLabels", "data"})
"""Maps in which what we do not say must not be there. Elsewhere others, and defaults, may add."""


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything in `wanted` is in `live`. Lists must be of the same length, item by item."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and (live[key] == value if key in EXACT and _flat(value) else covers(live[key], value))
            for key, value in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(live, (list, tuple))
            and len(live) == len(wanted)
            and all(covers(have, want) for have, want in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def _flat(value: Any) -> bool:
    return isinstance(value, Mapping) and not any(isinstance(each, (Mapping, list)) for each in value.values())
