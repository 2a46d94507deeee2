"""The lifecycle rules of a bucket, from the words in which S3 tells them."""

from collections.abc import Iterator, Mapping
from typing import Any

from core.lifecycle import Rule


def rule_of(told: Mapping[str, Any]) -> Rule:
    """A filter is a prefix, a tag, a size, or all of several; the oldest form has its prefix beside it."""
    chosen = told.get("Filter") or {}
    both = {**chosen, **chosen.get("And", {})}
    return Rule(
        told.get("ID") or "without a name",
        both.get("Prefix", told.get("Prefix")) or "",
        tuple(_does(told)),
        told.get("Status") == "Enabled",
        "Tag" in both or bool(both.get("Tags")),
        both.get("ObjectSizeGreaterThan"),
        both.get("ObjectSizeLessThan"),
    )


def _does(told: Mapping[str, Any]) -> Iterator[str]:
    """What it does to current versions: firn reads no old one, and no mark that only tells of a deletion."""
    expiration = told.get("Expiration") or {}
    if "Days" in expiration or "Date" in expiration:
        yield "expires"
    for each in told.get("Transitions") or ():
        yield f"moves to {each.get('StorageClass', 'another class')}"
