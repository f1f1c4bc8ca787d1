"""Objects as a CRD's schema lets them pass, and such objects spoilt in one place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

CRDS = Path(__file__).parents[1] / "crds"
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
_QUANTITIES = st.sampled_from(["1", "250m", "1Gi", "512Mi", "0", "1e3", "99999999999Ti"])


def spec_schema(plural: str) -> Mapping[str, Any]:
    """The schema of `spec` in the CRD of that plural."""
    crd = yaml.safe_load((CRDS / f"lakeloop.io_{plural}.yaml").read_text())
    found: Mapping[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def matching(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the structural schema accepts; rules across fields (CEL) are not looked at."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return _QUANTITIES
    match schema.get("type"):
        case "object":
            return _objects(schema)
        case "array":
            most = min(schema.get("maxItems", 3), 3)
            least = min(schema.get("minItems", 0), most)
            return st.lists(matching(schema["items"]), min_size=least, max_size=max(least, most))
        case "string":
            return _texts(schema)
        case "integer":
            return st.integers(int(schema.get("minimum", 0)), int(schema.get("maximum", 2**31)))
        case "number":
            low, high = schema.get("minimum", -1e9), schema.get("maximum", 1e9)
            return st.floats(low, high, exclude_min=schema.get("exclusiveMinimum", False),
                             exclude_max=schema.get("exclusiveMaximum", False))  # fmt: skip
        case "boolean":
            return st.booleans()
    return JUNK


def _objects(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    properties = schema.get("properties")
    if properties:
        required = set(schema.get("required", ()))
        needed = {name: matching(each) for name, each in properties.items() if name in required}
        other = {name: matching(each) for name, each in properties.items() if name not in required}
        return st.fixed_dictionaries(needed, optional=other)
    inner = schema.get("additionalProperties")
    values = matching(inner) if isinstance(inner, Mapping) else JUNK
    return st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=2)


def _texts(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.sampled_from(["2026-01-01T00:00:00Z", "2026-11-24T08:00:00+02:00", "1970-01-01T00:00:00Z"])
    most = min(schema.get("maxLength", 24), 24)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) <= 64)
    return st.text(min_size=min(schema.get("minLength", 0), most), max_size=most)


@st.composite
def spoilt(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    """A value of which one part, anywhere, is taken away or is something else."""
    value = draw(values)
    at: Any = value
    while isinstance(at, dict | list) and at:
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        below = at[key]
        if not (isinstance(below, dict | list) and below) or draw(st.booleans()):
            if draw(st.booleans()):
                at[key] = draw(JUNK)
            else:
                del at[key]
            break
        at = below
    return value
