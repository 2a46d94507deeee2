"""Where the rows of an import come to lie: in runs that the ledger knows, or in Kafka.

Everything that a reader asks first (which weeks, who, the newest message) is there before a run is registered.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from blake3 import blake3

from core import ring, rows, weeks
from core.digest import Digest, of_rows
from core.errors import BlockedError
from core.imported import events_of
from core.moves import born_cold
from core.overlay import Row
from jobs.imports.notes import UnitKey
from lakehouse.runs import write_run
from schemas.events import Event, MessageSent
from stores import conversations
from stores.cassandra import Statement, bounded
from stores.ledger import Ledger
from stores.objects import Objects

JOINED_MAX = 200_000
_STEM_LENGTH = 24


@dataclass(frozen=True)
class Sinks:
    """`write` is of Cassandra, `send` of Kafka: both return when what they took is safe. `attempt` is this process.
    `joined` is only a shortcut: forgetting it costs writes, never members."""

    import_id: str
    attempt: str
    ledger: Ledger
    objects: Objects
    write: Callable[[Iterable[Sequence[Statement]]], None]
    send: Callable[[Iterable[Event]], None]
    row_group_bytes: int
    joined: set[tuple[bytes, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Load:
    """The messages of one part of a unit, one row each, in token order."""

    unit: UnitKey
    part: str
    rows: tuple[Row, ...]
    digest: Digest


def load_of(unit: UnitKey, part: str, messages: Iterable[Row]) -> Load:
    held = list(messages)
    tokens = {key: ring.token(key) for key in {row.conversation_id for row in held}}
    ordered = tuple(sorted(held, key=lambda row: (tokens[row.conversation_id], *row.key)))
    return Load(unit, part, ordered, of_rows(ordered))


def as_events(sinks: Sinks, loads: Iterable[Load]) -> None:
    sinks.send(event for load in loads for row in load.rows for event in events_of(row))


def as_runs(sinks: Sinks, loads: Sequence[Load]) -> list[str]:
    """The name of the run that holds each load. One that the ledger knows was made before, and has perhaps been folded
    since: it is left alone."""
    known = [_known(sinks, load) for load in loads]
    new = [load for load, name in zip(loads, known, strict=True) if not name]
    for load in new:
        if sinks.ledger.unit(*load.unit) is None:
            sinks.ledger.create(born_cold(sinks.ledger.region, *load.unit))
    sinks.write(_known_beside(sinks.ledger.region, new, sinks.joined))
    names = [name or _as_run(sinks, load) for load, name in zip(loads, known, strict=True)]
    for load, name in zip(loads, names, strict=True):
        _follow(sinks, load, name)
    return names


def _follow(sinks: Sinks, load: Load, name: str) -> None:
    """Where a thaw has switched the unit up before the run was registered, no fold comes for it: it goes through the
    log, too. What is registered before the switch the thaw takes in by itself."""
    unit = sinks.ledger.unit(*load.unit)
    if unit is None or not unit.tier.is_cql:
        return
    for run in sinks.ledger.runs(*load.unit):
        if run.name == name and not run.folded:
            as_events(sinks, [load])
            sinks.ledger.fold_run(run)


def _as_run(sinks: Sinks, load: Load) -> str:
    name, batches = _stem(sinks, load) + sinks.attempt, rows.to_batches(load.rows)
    run = write_run(batches, sinks.objects, *load.unit, name, load.digest, sinks.row_group_bytes)
    if not sinks.ledger.add_run(run):
        raise BlockedError(f"run {run.path} is known with other facts", "see who else imports it; then run it again")
    return name


def _known(sinks: Sinks, load: Load) -> str:
    stem = _stem(sinks, load)
    return next((run.name for run in sinks.ledger.runs(*load.unit) if run.name.startswith(stem)), "")


def _stem(sinks: Sinks, load: Load) -> str:
    """The same rows of the same import; the attempt completes the name. A file that was written and never registered
    is nobody's: were it taken up again, the purge of orphans could delete it in the same moment."""
    week, slice_ = load.unit
    origin = f"{sinks.import_id}/{week}/{slice_}/{load.part}/{load.digest.rows}/{load.digest}"
    return blake3(origin.encode()).hexdigest()[:_STEM_LENGTH]


def _known_beside(region: str, loads: Iterable[Load], joined: set[tuple[bytes, int]]) -> Iterator[list[Statement]]:
    """What conversations and people know of these messages: a batch per conversation, then those of each person."""
    memberships: list[tuple[int, Statement]] = []
    ordered = sorted((row for load in loads for row in load.rows), key=attrgetter("key"))
    for conversation_id, group in groupby(ordered, key=attrgetter("conversation_id")):
        sent = [_sent(row) for row in group]
        held = {weeks.of_id(message.message_id) for message in sent}
        statements = [conversations.present(region, conversation_id, week) for week in sorted(held)]
        statements.append(conversations.head(region, sent[-1]))
        for message in _joining(sent, joined):
            member, membership = conversations.joined(region, message)
            statements.append(member)
            memberships.append((message.sender_id, membership))
        yield from bounded(statements)
    for _, of_person in groupby(sorted(memberships, key=lambda one: one[0]), key=lambda one: one[0]):
        yield from bounded(statement for _, statement in of_person)


def _joining(sent: Iterable[MessageSent], joined: set[tuple[bytes, int]]) -> Iterator[MessageSent]:
    """The first message of each person who has not spoken there yet; units come oldest first."""
    if len(joined) > JOINED_MAX:
        joined.clear()
    for message in sent:
        key = (message.conversation_id, message.sender_id)
        if key not in joined:
            joined.add(key)
            yield message


def _sent(row: Row) -> MessageSent:
    message = next(events_of(row))
    assert isinstance(message, MessageSent)
    return message
