"""The CQL that the product sends, parsed once per text: just the forms that `stores` uses, and nothing else.

Of each text there is one plan, so plans are compared by identity.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

_SELECT = re.compile(r"SELECT (.+?) FROM (\S+)(?: WHERE (.+?))?(?: LIMIT (\S+))?$")
_INSERT = re.compile(r"INSERT INTO (\S+) \((.+?)\) VALUES \((.+)\)( IF NOT EXISTS)?( USING TIMESTAMP \?)?$")
_UPDATE = re.compile(r"UPDATE (\S+) SET (.+?) WHERE (.+?) IF (.+)$")
_DELETE = re.compile(r"DELETE FROM (\S+)( USING TIMESTAMP \?)? WHERE (.+)$")
_TERM = re.compile(r"(token\(\w+\)|\w+) ?(<=|>=|=|<|>| IN) ?(\?|'[^']*'|-?\w+)$")
_DDL = re.compile(r"(CREATE TABLE IF NOT EXISTS|DROP TABLE IF EXISTS) (\S+)")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}


class Marker(NamedTuple):
    """The place of a value among the parameters."""

    at: int


Source = Any  # a Marker, or the value itself


class Term(NamedTuple):
    column: str
    operator: str
    value: Source


@dataclass(frozen=True, eq=False)
class Select:
    table: str
    columns: tuple[str, ...]
    where: tuple[Term, ...]
    limit: Source


@dataclass(frozen=True, eq=False)
class Insert:
    """`written_us`: what it says of its timestamp; None for one that says nothing."""

    table: str
    values: tuple[tuple[str, Source], ...]
    is_conditional: bool
    written_us: Source


@dataclass(frozen=True, eq=False)
class Update:
    """Always conditional; no `terms`: IF EXISTS."""

    table: str
    values: tuple[tuple[str, Source], ...]
    where: tuple[Term, ...]
    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Delete:
    table: str
    where: tuple[Term, ...]
    written_us: Source


@dataclass(frozen=True)
class Ddl:
    table: str
    is_drop: bool


Plan = Select | Insert | Update | Delete | Ddl


class UnknownStatementError(ValueError):
    """The product sends something new: the simulation must learn it."""


@cache
def parsed(text: str) -> Plan:
    for pattern, build in ((_SELECT, _select), (_INSERT, _insert), (_UPDATE, _update), (_DELETE, _delete)):
        if found := pattern.match(text):
            return build(_Numbers(text), found)
    if found := _DDL.match(text):
        return Ddl(found[2], found[1].startswith("DROP"))
    raise UnknownStatementError(text)


def value_of(source: Source, params: Sequence[Any]) -> Any:
    return params[source.at] if type(source) is Marker else source


class _Numbers:
    """Hands out the parameters' numbers in the order of the text."""

    def __init__(self, text: str) -> None:
        self.next = 0
        self.count = text.count("?")

    def source(self, text: str) -> Source:
        text = text.strip()
        if text == "?":
            self.next += 1
            return Marker(self.next - 1)
        if text in _WORDS:
            return _WORDS[text]
        return text[1:-1] if text.startswith("'") else int(text)

    def terms(self, text: str | None) -> tuple[Term, ...]:
        return tuple(self._term(part) for part in text.split(" AND ")) if text else ()

    def _term(self, text: str) -> Term:
        found = _TERM.match(text.strip())
        if not found:
            raise UnknownStatementError(text)
        return Term(found[1], found[2].strip(), self.source(found[3]))

    def pairs(self, text: str) -> tuple[tuple[str, Source], ...]:
        halves = (part.split("=", 1) for part in text.split(", "))
        return tuple((name.strip(), self.source(value)) for name, value in halves)


def _select(numbers: _Numbers, found: re.Match[str]) -> Plan:
    where = numbers.terms(found[3])
    limit = numbers.source(found[4]) if found[4] else None
    return Select(found[2], tuple(name.strip() for name in found[1].split(",")), where, limit)


def _insert(numbers: _Numbers, found: re.Match[str]) -> Plan:
    names, texts = (part.split(",") for part in (found[2], found[3]))
    values = tuple((name.strip(), numbers.source(text)) for name, text in zip(names, texts, strict=True))
    return Insert(found[1], values, bool(found[4]), numbers.source("?") if found[5] else None)


def _update(numbers: _Numbers, found: re.Match[str]) -> Plan:
    values, where = numbers.pairs(found[2]), numbers.terms(found[3])
    return Update(found[1], values, where, () if found[4] == "EXISTS" else numbers.terms(found[4]))


def _delete(numbers: _Numbers, found: re.Match[str]) -> Plan:
    written = numbers.source("?") if found[2] else None
    return Delete(found[1], numbers.terms(found[3]), written)
