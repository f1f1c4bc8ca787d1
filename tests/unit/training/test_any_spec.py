"""Specs made from the CRD's schema, whole and spoilt: no crash, no hot loop, and always a state with a reason."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schema_strategies import matching, spec_schema, spoilt
from unit.training.world import World

SPECS = matching(spec_schema("trainingjobs"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(SPECS, spoilt(SPECS)), st.booleans())
def test_every_spec_ends_in_a_state(spec: Any, later: bool) -> None:
    asyncio.run(_run(spec, later=later))


async def _run(spec: Any, *, later: bool) -> None:
    world = World()
    if later:  # over a job that did well before
        await world.until_succeeded()
    else:
        world.apply()
    world.kubernetes.change(world.ref, lambda obj: obj.update(spec=spec))
    for seconds in (0, 700, 4000):
        world.clock.tick(seconds)
        again = await world.settle()
        assert again is None or again > 0
    found = {
        each["type"]: each["reason"]
        for each in world.status.get("conditions", [])
        if each["type"] in ("Ready", "Reconciling", "Stalled", "Suspended") and each["status"] == "True"
    }
    assert found, world.status
    assert all(found.values())
