"""What people said, and what of it must be there now: the memory of the checker, which shares no rule with the product.

`Known` is what one can know of one message. Whoever looks into a store, a file or a page makes such a thing of what is
found there, and the laws compare it with what was said.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache

Key = tuple[bytes, bytes]  # conversation, message


class Kind(StrEnum):
    SENT = "sends"
    EDITED = "edits"
    DELETED = "deletes"
    REACTED = "reacts to"


@dataclass(frozen=True, eq=False)
class Said:
    """`event` is the message's own id where it is sent. `value`: the body or the reaction; None takes one back."""

    kind: Kind
    conversation: bytes
    week: int
    message: bytes
    event: bytes
    user: int
    value: bytes | None

    @property
    def key(self) -> Key:
        return self.conversation, self.message


@dataclass(frozen=True)
class Known:
    is_sent: bool = False
    body: bytes | None = None
    edit: tuple[bytes, bytes | None] | None = None
    is_deleted: bool = False
    reactions: tuple[tuple[int, bytes, bytes | None], ...] = ()

    def joined(self, other: "Known") -> "Known":
        latest = {user: (event, value) for user, event, value in self.reactions}
        for user, event, value in other.reactions:
            if user not in latest or event > latest[user][0]:
                latest[user] = (event, value)
        return Known(
            self.is_sent or other.is_sent,
            self.body if self.body is not None else other.body,
            max((edit for edit in (self.edit, other.edit) if edit), default=None, key=lambda edit: edit[0]),
            self.is_deleted or other.is_deleted,
            tuple((user, *latest[user]) for user in sorted(latest)),
        )

    def lacks(self, wanted: "Known") -> str:
        """What of `wanted` is not here, nor anything later in its place; empty when nothing is lacking."""
        if wanted.is_sent and not self.is_sent:
            return "the message itself"
        if wanted.is_deleted and not self.is_deleted:
            return "its deletion"
        if self.is_deleted:
            return ""
        if wanted.edit and (self.edit is None or self.edit[0] < wanted.edit[0]):
            return "its edit"
        if wanted.is_sent and not self.edit and self.body != wanted.body:
            return "its very bytes"
        here = {user: event for user, event, _ in self.reactions}
        missing = [user for user, event, _ in wanted.reactions if here.get(user, b"") < event]
        return "a reaction" if missing else ""


@lru_cache(4000)
def known_of(said: Said) -> Known:
    match said.kind:
        case Kind.SENT:
            return Known(is_sent=True, body=said.value)
        case Kind.EDITED:
            return Known(edit=(said.event, said.value))
        case Kind.DELETED:
            return Known(is_deleted=True)
        case Kind.REACTED:
            return Known(reactions=((said.user, said.event, said.value),))


NOTHING = Known()
Found = dict[Key, Known]


def add(found: Found, key: Key, known: Known) -> None:
    found[key] = found[key].joined(known) if key in found else known


def lacking(found: Found, wanted: Found) -> Iterator[tuple[Key, str]]:
    for key, known in wanted.items():
        if what := found.get(key, NOTHING).lacks(known):
            yield key, what


@dataclass
class Truth:
    """`durable`: what was written before an offset commit (or a fold of an import) said so; from then on it must be
    found. `possible`: what anybody has said at all."""

    durable: dict[int, Found] = field(default_factory=dict)
    possible: dict[int, Found] = field(default_factory=dict)
    said: dict[Key, list[Said]] = field(default_factory=dict)

    def say(self, said: Said) -> None:
        add(self.possible.setdefault(said.week, {}), said.key, known_of(said))
        self.said.setdefault(said.key, []).append(said)

    def keep(self, said: Said) -> None:
        add(self.durable.setdefault(said.week, {}), said.key, known_of(said))

    def snapshot(self, conversation: bytes) -> Found:
        weeks = self.durable.values()
        return {key: known for found in weeks for key, known in found.items() if key[0] == conversation}

    def possible_deletion(self, key: Key) -> bool:
        return any(one.kind is Kind.DELETED for one in self.said.get(key, ()))

    def is_allowed(self, shown: Known, must: Known, key: Key) -> str:
        """Why a page may not show this of a message; empty when it may. What changed it may be newer than `must`."""
        said = self.said.get(key, [])
        if not any(one.kind is Kind.SENT for one in said):
            return "nobody ever sent it"
        if must.is_deleted:
            return "it was deleted"
        if shown.edit and not any(one.event == shown.edit[0] and one.value == shown.edit[1] for one in said):
            return "nobody ever edited it so"
        spoken = {(one.user, one.event, one.value) for one in said if one.kind is Kind.REACTED}
        if any(one not in spoken for one in shown.reactions):
            return "nobody ever reacted so"
        return self._is_stale(shown, must, said)

    def _is_stale(self, shown: Known, must: Known, said: Iterable[Said]) -> str:
        """Taken-back reactions are not shown, so a page without one is right if some later event took it back."""
        events = list(said)
        here = {user for user, _, _ in shown.reactions}
        gone = {
            (user, event, value)
            for user, event, value in must.reactions
            if user not in here
            and (value is None or any(one.user == user and one.event > event and one.value is None for one in events))
        }
        left = replace(must, reactions=tuple(one for one in must.reactions if one not in gone))
        lack = shown.lacks(left)
        return f"it lacks {lack}" if lack else ""
