"""What lies in each store, read past the product: cells, lane, files. For the checker alone."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

from bench.simulation.cluster import NODES, QUORUM, Partition, merged_partition, ordered
from bench.simulation.files import groups_in
from bench.simulation.truth import Found, Key, Known, add, known_of
from bench.simulation.world import World

_RING_BITS = 64


def shard_of(token: int, parts: int) -> int:
    """The part of an even cut of the ring that holds a token."""
    return (token + 2**63 - 1) * parts >> _RING_BITS


def quorums(world: World, tables: Sequence[str]) -> list[Sequence[int]]:
    """Every set of replicas that a read may ask; one will do where all are alike."""
    if any(table in world.cluster.uneven for table in tables):
        return list(combinations(NODES, QUORUM))
    return [NODES[:1]]


def week_tables(region: str, tier: str, week: int) -> tuple[str, str]:
    return f"{region}_{tier}.messages_w{week}", f"{region}_{tier}.reactions_w{week}"


def in_tables(world: World, tier: str, week: int, nodes: Sequence[int]) -> Found:
    """Nothing where there are no tables."""
    found: Found = {}
    messages, reactions = week_tables(world.region, tier, week)
    for row in _rows(world, messages, nodes):
        add(found, _key(row), _message(row))
    for row in _rows(world, reactions, nodes):
        event, value = row.value("reaction")
        add(found, _key(row), Known(reactions=((row.value("user_id"), ordered(event), value),)))
    return found


def _message(row: Any) -> Known:
    edit, is_sent = row.value("edit"), row.value("message_type") is not None
    change = (ordered(edit[0]), edit[1]) if edit else None
    return Known(is_sent, row.value("body"), change, bool(row.value("deleted")))


def in_lane(world: World, week: int, nodes: Sequence[int]) -> Found:
    found: Found = {}
    for row in _rows(world, f"{world.region}_hot.lane", nodes, week):
        said = world.by_payload[row.value("event")]
        add(found, said.key, known_of(said))
    return found


def in_file(world: World, key: str) -> dict[Key, Known] | None:
    """None where it is not there, or rotten."""
    data = world.objects.peek(key)
    return None if data is None else _known_in(data)


@lru_cache(4000)
def _known_in(data: bytes) -> Found:
    found: Found = {}
    for group in groups_in(data):
        for row in group:
            edit = (row.edit_id, row.body) if row.edit_id else None
            reactions = tuple((one.user_id, one.event_id, one.reaction) for one in row.reactions)
            body = None if row.edit_id else row.body
            add(found, row.key, Known(row.message_type is not None, body, edit, row.deleted, reactions))
    return found


def _rows(world: World, table: str, nodes: Sequence[int], week: int | None = None) -> Iterator[Any]:
    held = [world.cluster.nodes[node].get(table, {}) for node in nodes]
    if not any(held):
        return
    keys = dict.fromkeys(key for partitions in held for key in partitions if week is None or key[1] == week)
    for key in keys:
        yield from (row for row in _partition([part[key] for part in held if key in part]).values() if row.is_live)


def _partition(held: Iterable[Partition]) -> Partition:
    parts = list(held)
    return parts[0] if len(parts) == 1 else merged_partition(parts)


def _key(row: Any) -> Key:
    return row.value("conversation_id").bytes, ordered(row.value("message_id"))
