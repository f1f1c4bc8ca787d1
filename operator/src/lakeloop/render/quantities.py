"""Kubernetes' quantities as numbers: `250m` → 0.25, `1Gi` → 2³⁰."""

import re
from collections.abc import Mapping
from typing import Final

_UNITS: Final[Mapping[str, float]] = {
    "": 1,
    "m": 1e-3,
    **{unit: float(10 ** (3 * power)) for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{f"{unit}i": float(2 ** (10 * power)) for power, unit in enumerate(("K", "M", "G", "T", "P", "E"), start=1)},
}


def value_of(quantity: str) -> float:
    """Raises ValueError for what is no quantity."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", quantity)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{quantity!r} is not a quantity such as 500m or 1Gi")
    return float(match[1]) * _UNITS[match[2]]
