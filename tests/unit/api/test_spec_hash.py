"""The hash that decides whether a change of the spec starts a run."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import training_job_dict
from lakeloop.api.v1alpha1.spec_hash import code_digest, training_parts, training_spec_hash

SPEC = training_job_dict(
    spark={"image": "a", "conf": {"x": "1"}, "driver": {"cores": 1}},
    estimator={"steps": [{"class": "a.B", "params": {"C": 1}}]},
)["spec"]


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SPEC), **parts}


def test_is_sixteen_hex_digits_and_the_same_in_every_release() -> None:
    # A new value here would start a run of every job at the next upgrade of the operator.
    assert training_spec_hash(SPEC) == "5fece7549922022a"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(changed(inputs=[{"name": "customers", "uri": "s3a://lake/customers", "version": 1}]), id="input"),
        pytest.param(changed(dataset={"target": "other"}), id="dataset"),
        pytest.param(changed(estimator={"steps": [{"class": "a.B", "params": {"C": 2}}]}), id="estimator"),
        pytest.param(changed(estimator={"steps": [{"class": "a.B", "params": {"C": {"float": "1.0"}}}]}), id="float"),
        pytest.param(changed(script={"path": "a.py"}), id="script"),
        pytest.param(changed(project={"uri": "https://x"}), id="project"),
        pytest.param(changed(objective={"metric": "f1"}), id="objective"),
        pytest.param(changed(search={"maxTrials": 1}), id="search"),
        pytest.param(changed(evaluation={}), id="evaluation, though empty"),
        pytest.param(changed(explanation={"method": "Permutation"}), id="a default, now written"),
        pytest.param(changed(register={"model": "other"}), id="register"),
        pytest.param(changed(dependencies={"pip": ["a==1"]}), id="dependencies"),
        pytest.param(changed(spark={"image": "b", "conf": {"x": "1"}}), id="spark.image"),
        pytest.param(changed(spark={"image": "a", "conf": {"x": "2"}}), id="spark.conf"),
        pytest.param(changed(spark={"image": "a"}), id="spark.conf gone"),
    ],
)
def test_training_parts_change_it(spec: dict[str, Any]) -> None:
    assert training_spec_hash(spec) != training_spec_hash(SPEC)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(changed(suspend=True), id="suspend"),
        pytest.param(changed(runPolicy={"historyLimit": 1}), id="limits"),
        pytest.param(changed(triggers={"schedule": {"cron": "@daily"}}), id="triggers"),
        pytest.param(changed(storage={"region": "x"}), id="storage"),
        pytest.param(changed(tracking={"experiment": "x"}), id="tracking"),
        pytest.param(changed(spark=SPEC["spark"] | {"driver": {"cores": 8}}), id="resources"),
        pytest.param(changed(script=None), id="null"),
        pytest.param(changed(estimator={"steps": [{"params": {"C": 1.0}, "class": "a.B"}]}), id="1.0 and key order"),
    ],
)
def test_other_parts_do_not(spec: dict[str, Any]) -> None:
    assert training_spec_hash(spec) == training_spec_hash(SPEC)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(params=st.dictionaries(st.text(), json_values, max_size=4))
def test_survives_storage_as_json_in_any_key_order(params: dict[str, Any]) -> None:
    spec = changed(estimator={"steps": [{"class": "a.B", "params": params}]})
    stored = json.loads(json.dumps(dict(reversed(spec.items())), sort_keys=True))
    assert training_spec_hash(stored) == training_spec_hash(spec)


def test_the_code_digest_is_of_the_code_alone() -> None:
    digest = code_digest(SPEC)
    assert digest.startswith("sha256:")
    assert len(digest) == 71
    assert code_digest(changed(dataset={"target": "other"}, spark={"image": "b"}, objective={"metric": "f1"})) == digest
    assert code_digest(changed(estimator={"steps": [{"class": "a.B", "params": {"C": 2}}]})) != digest
    assert code_digest(changed(estimator=None, script={"path": "a.py"})) != digest


def test_training_parts_have_the_hash_of_the_whole() -> None:
    spec = changed(triggers={}, runPolicy={}, storage={"secretRef": {"name": "x"}})
    parts = training_parts(spec)
    assert parts.keys() == {"inputs", "dataset", "estimator", "register", "spark"}
    assert parts["spark"] == {"image": "a", "conf": {"x": "1"}}
    assert training_spec_hash(parts) == training_spec_hash(spec)
