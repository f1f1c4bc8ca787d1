"""What is told to the operator and to callers."""

import json

from hypothesis import given
from hypothesis import strategies as st
from lakeloop_server.errors import LoadError, Reason, RequestError


@given(st.text())
def test_a_termination_message_is_json_that_the_kubelet_keeps_whole(message: str) -> None:
    text = LoadError(Reason.LOAD_FAILED, message * 50).termination_message()
    assert len(text.encode()) <= 4096
    assert json.loads(text)["reason"] == "LoadFailed"


def test_a_short_message_is_told_as_it_is() -> None:
    assert json.loads(LoadError(Reason.DIGEST_MISMATCH, "é").termination_message()) == {
        "reason": "DigestMismatch",
        "message": "é",
    }


def test_bodies() -> None:
    error = RequestError(400, "BAD_REQUEST", "no")
    assert json.loads(error.body()) == {"error_code": "BAD_REQUEST", "message": "no"}
    assert json.loads(error.body(v2=True)) == {"error": "no", "error_code": "BAD_REQUEST", "message": "no"}
