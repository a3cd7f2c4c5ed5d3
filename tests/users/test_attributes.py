"""Attributes change by JSON merge patch and stay within bounds."""

from typing import Any

import pytest
from hypothesis import given

from denizen.users.attributes import check_attributes, difference, merge
from denizen.users.rejections import Rejected

from .strategies import json_objects, json_values


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


@given(json_values, json_values)
def test_merging_twice_is_merging_once_and_changes_neither_side(target: Any, patch: Any) -> None:
    before = repr((target, patch))
    once = merge(target, patch)
    assert merge(once, patch) == once
    assert repr((target, patch)) == before


@given(json_objects, json_objects)
def test_the_difference_leads_from_before_to_after(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed, removed = difference(before, after)
    assert {key: value for key, value in before.items() if key not in removed} | changed == after
    assert difference(after, after) == ({}, [])


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), ({"a": [1]}, {"a": [True]}), (1, 1.0), ("1", 1)])
def test_values_that_python_calls_equal_are_still_different(before: Any, after: Any) -> None:
    assert difference({"a": before}, {"a": after}) == ({"a": after}, [])


def test_the_order_of_members_is_no_difference() -> None:
    assert difference({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}) == ({}, [])


@pytest.mark.parametrize(
    ("attributes", "code", "field"),
    [
        ({"a": "x" * 16_384}, "attributes_too_large", "attributes"),
        ({"a": {"b": [{"c": [[[[[]]]]]}]}}, "attributes_too_deep", "attributes"),
        ({"a": {"b": ["x", "\0"]}}, "text_invalid", "attributes.a.b[1]"),
        ({"a": {"b\n": 1}}, "text_invalid", "attributes.a"),
        ({"a": {"k" * 201: 1}}, "too_long", "attributes.a"),
        ({"a": 1 << 64}, "wrong_value", "attributes.a"),
        ({"a": -(1 << 63) - 1}, "wrong_value", "attributes.a"),
        ({"a": [float("nan")]}, "wrong_value", "attributes.a[0]"),
        ({"a": float("inf")}, "wrong_value", "attributes.a"),
        ({"a": (1, 2)}, "wrong_value", "attributes.a"),
        ({"a": {"b": {1: 2}}}, "wrong_type", "attributes.a.b"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_path(attributes: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_attributes(attributes)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_the_bounds_themselves_are_allowed() -> None:
    check_attributes({"a": "x" * (16_384 - len('{"a":""}'))})
    check_attributes({"a": [[[[[[["deep"]]]]]]]})
    check_attributes({"k" * 200: [(1 << 64) - 1, -(1 << 63), "tab\tand\r\nline", None, True]})
