"""A body of the wrong shape is told in words about its fields, never in Python's."""

from typing import Any

import pytest

from denizen.api.operations import BucketsToMove, PlanRequest, ShardChanges
from denizen.api.shapes import NewKey, UserIds, Why
from denizen.errors import Invalid
from denizen.http.requests import as_document, json_object

KEY = {"name": "shop", "scopes": ["admin"]}


@pytest.mark.parametrize(
    ("shape", "body", "code", "field", "detail"),
    [
        (Why, {"reason": 5}, "wrong_type", "reason", "`reason` must be a string, not a number"),
        (Why, {"reasom": "x"}, "unknown_field", "reasom", "`reasom`: there is no such field"),
        (Why, 5, "wrong_type", None, "the input must be an object, not a number"),
        (Why, {"reason": "x" * 501}, "wrong_value", "reason", "`reason` must have at most 500 characters"),
        (NewKey, {"name": "x"}, "missing_field", "scopes", "`scopes`: this field is required"),
        (NewKey, KEY | {"name": ""}, "wrong_value", "name", "`name` must have at least 1 character"),
        (NewKey, KEY | {"name": "\a"}, "wrong_value", "name", "`name` has a character that it cannot have"),
        (NewKey, KEY | {"scopes": []}, "wrong_value", "scopes", "`scopes` must have at least 1 item"),
        (NewKey, KEY | {"scopes": ["x" * 99]}, "wrong_value", "scopes[0]", f"`scopes[0]` cannot be '{'x' * 60}'"),
        (NewKey, KEY | {"rate_per_s": 0}, "wrong_value", "rate_per_s", "`rate_per_s` must be at least 1"),
        (NewKey, KEY | {"rate_per_s": 1.5}, "wrong_type", "rate_per_s", "`rate_per_s` must be a whole number"),
        (
            BucketsToMove, {"buckets": [""]}, "wrong_type", "buckets[0]",
            "`buckets[0]` must be a whole number, not a string",
        ),
        (UserIds, {"ids": ["x"]}, "wrong_value", "ids[0]", "`ids[0]` must be a UUID"),
        (BucketsToMove, {"buckets": [4096]}, "wrong_value", "buckets[0]", "`buckets[0]` must be at most 4095"),
        (PlanRequest, {"by": "age"}, "wrong_value", "by", "`by` cannot be 'age'"),
        (ShardChanges, {"weight": -1}, "wrong_value", "weight", "`weight` must be at least 0.01"),
    ],
)  # fmt: skip
def test_a_misfit_is_told_in_words(shape: Any, body: Any, code: str, field: str | None, detail: str) -> None:
    with pytest.raises(Invalid) as caught:
        as_document(body, shape)
    assert caught.value.facts["errors"] == [{"field": field, "code": code, "detail": detail}]


def test_a_body_that_is_no_object_is_told_so() -> None:
    with pytest.raises(Invalid, match="the input must be an object, not an array"):
        json_object([])
