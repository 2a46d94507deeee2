"""A rule of the bucket that reaches for what firn needs is a threat, however it is written; any other is let be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lifecycle import Rule, sentence, threats
from lakehouse.paths import HOMES, data_key, frozen_key, index_key, run_key
from stores.lifecycles import rule_of

COLD = data_key(0, 2913, 0, 1, "a")
KEYS = [COLD, frozen_key(0, 2913, 0, 0, 1, "a"), index_key(COLD), run_key(0, 2913, "a"), ".firn-bucket"]
KEYS.append("lake/messages/s000/_delta_log/00000000000000000001.json")
EXPIRES = {"ID": "r", "Status": "Enabled", "Expiration": {"Days": 30}}
FREEZES = {"ID": "r", "Status": "Enabled", "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}


def is_threat(told: dict[str, Any]) -> bool:
    return bool(threats([rule_of(told)], HOMES))


@pytest.mark.parametrize("act", [EXPIRES, FREEZES, EXPIRES | {"Expiration": {"Date": "2030-01-01"}}])
@pytest.mark.parametrize(
    "where",
    [
        {"Filter": {"Prefix": ""}},
        {"Filter": {}},
        {"Prefix": ""},
        {"Prefix": "lake/"},
        {"Filter": {"Prefix": "la"}},
        {"Filter": {"Prefix": "lake/messages/s000/_delta_log/"}},
        {"Filter": {"Prefix": "frozen/messages/s000/week=2913/"}},
        {"Filter": {"Prefix": "index/frozen/"}},
        {"Filter": {"Prefix": ".firn-bucket"}},
        {"Filter": {"ObjectSizeGreaterThan": 5}},
        {"Filter": {"And": {"Prefix": "runs/", "ObjectSizeLessThan": 9}}},
    ],
)
def test_a_rule_that_reaches_for_us(act: dict[str, Any], where: dict[str, Any]) -> None:
    assert is_threat(act | where)
    assert not is_threat(act | where | {"Status": "Disabled"})


@pytest.mark.parametrize(
    "told",
    [
        EXPIRES | {"Filter": {"Prefix": "media/"}},
        EXPIRES | {"Filter": {"Prefix": "lakes/"}},
        EXPIRES | {"Filter": {"Tag": {"Key": "k", "Value": "v"}}},
        EXPIRES | {"Filter": {"And": {"Prefix": "lake/", "Tags": [{"Key": "k", "Value": "v"}]}}},
        EXPIRES | {"Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
        {"Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
        {"Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
    ],
)
def test_a_rule_that_lets_us_be(told: dict[str, Any]) -> None:
    assert not is_threat(told)


def test_it_is_told_in_a_sentence() -> None:
    rule = rule_of(EXPIRES | FREEZES | {"Filter": {"Prefix": "lake/"}})
    assert sentence(rule) == "lifecycle rule r expires and moves to GLACIER what lies below lake/"
    assert sentence(Rule("x", "", ("expires",))) == "lifecycle rule x expires what lies everywhere"


@given(
    st.sampled_from(KEYS).flatmap(lambda key: st.integers(0, len(key)).map(lambda end: (key, key[:end]))),
    st.integers(0, 20),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 20),
)
def test_no_rule_that_takes_a_live_key_is_overlooked(
    case: tuple[str, str], size_bytes: int, larger: int | None, smaller: int | None
) -> None:
    key, prefix = case
    rule = Rule("r", prefix, ("expires",), larger_than_bytes=larger, smaller_than_bytes=smaller)
    if rule.takes(key, size_bytes):
        assert threats([rule], HOMES) == [rule]
