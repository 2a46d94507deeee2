"""An independent judge of a region: reads what is stored by its own means and holds it against what clients sent.

It shares no code with the product, so that one mistake cannot hide in both. Where the truth of a week lies it takes
from the ledger's tables, then reads that place alone (source or sink, never both) and the lane. The client's own log of
acknowledged events, one JSON object a line, is the other side.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pyarrow.parquet as pq
from blake3 import blake3
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.metadata import Murmur3Token
from cassandra.policies import RoundRobinPolicy
from cassandra.query import tuple_factory

from tests.avro import decode
from tests.unsealing import Opener

MICROSECONDS_IN_WEEK = 7 * 24 * 3600 * 1_000_000
FIRST_MONDAY_US = 4 * 24 * 3600 * 1_000_000
Key = tuple[bytes, bytes]
Cell = tuple[bytes, bytes | None]  # the id of the event that set it, and the value


class Final(NamedTuple):
    """A message as everybody must see it."""

    conversation_id: bytes
    message_id: bytes
    sender_id: int | None
    message_type: int | None
    body: bytes | None
    media_ref: str | None
    reply_to: bytes | None
    edit_id: bytes | None
    deleted: bool
    server_us: int | None
    reactions: tuple[tuple[int, bytes, bytes | None], ...]


@dataclass
class Cells:
    """What is known of one message, cell by cell. `editor` counts only where the message itself is not here."""

    plain: dict[str, Any] = field(default_factory=dict)
    edit: Cell | None = None
    editor: int | None = None
    deleted: bool = False
    reactions: dict[int, Cell] = field(default_factory=dict)

    def absorb(self, other: "Cells") -> None:
        editor = max((one for one in (self.editor, other.editor) if one is not None), default=None)
        self.plain |= {name: value for name, value in other.plain.items() if value is not None}
        self.editor = editor
        self.edit = later(self.edit, other.edit)
        self.deleted = self.deleted or other.deleted
        for user, cell in other.reactions.items():
            known = later(self.reactions.get(user), cell)
            assert known is not None
            self.reactions[user] = known

    def final(self, key: Key) -> Final:
        keep = {} if self.deleted else {"body": self.plain.get("body"), "media_ref": self.plain.get("media_ref")}
        edit = None if self.deleted else self.edit
        reactions = {} if self.deleted else self.reactions
        return Final(
            *key,
            self.plain.get("sender_id", self.editor),
            self.plain.get("message_type"),
            edit[1] if edit else keep.get("body"),
            keep.get("media_ref"),
            self.plain.get("reply_to"),
            edit[0] if edit else None,
            self.deleted,
            self.plain.get("server_us"),
            tuple((user, *reactions[user]) for user in sorted(reactions)),
        )


Rows = dict[Key, Cells]


@dataclass(frozen=True)
class Place:
    """Where a region lies; `bucket` is a directory, `configured_key` opens its vault. One slice."""

    host: str
    port: int
    region: str
    bucket: Path
    configured_key: bytes


@dataclass(frozen=True)
class Report:
    """Digests are 32 hex digits. No fault: nothing is lost, nothing is there twice, nothing differs."""

    rows: int
    digest: str
    expected_digest: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Checker:
    place: Place
    session: Session
    log: Path

    def report(self) -> Report:
        faults: list[str] = []
        found = finals(self.stored(faults))
        wanted = self.expected()
        faults += differences(found, wanted)
        return Report(len(found), digest(found.values()), digest(wanted.values()), tuple(faults))

    def expected(self) -> dict[Key, Final]:
        """What the client was told is safe."""
        rows: Rows = {}
        for line in self.log.read_text().splitlines():
            add(rows, *cells_of(json.loads(line)))
        return finals(rows)

    def stored(self, faults: list[str]) -> Rows:
        rows: Rows = {}
        generations = self.frozen_generations()
        for week, slice_, tier, shards in self.units():
            frozen = generations.get((week, slice_), 0)
            if tier in ("hot", "warm"):
                self._add_table(rows, tier, week, faults)
            elif tier == "cold" and shards:
                self._add_files(rows, week, slice_, shards, frozen == 0, faults)
            for generation in range(frozen):
                self._add_frozen(rows, week, slice_, generation, faults)
        for week, event in self.lane():
            key, cells = cells_of(event)
            if week_of(key[1]) != week:
                faults.append(f"the lane keeps an event of week {week_of(key[1])} under {week}")
            add(rows, key, cells)
        self._check_weeks(rows, faults)
        return rows

    def units(self) -> list[tuple[int, int, str, int]]:
        """(week, slice, the tier that alone holds its truth, N). That of a frozen unit which is being thawed is its
        frozen generations and what supplement cold may have of it."""
        columns = "week, slice, source, sink, state, shards"
        rows = self._ask(f"SELECT {columns} FROM {self.place.region}_meta.moves")
        moved, of = ("switched", "dropped"), {"frozen": "cold"}
        return sorted((week, slice_, b if state in moved else of.get(a, a), n) for week, slice_, a, b, state, n in rows)

    def frozen_generations(self) -> dict[tuple[int, int], int]:
        """(week, slice) → how many generations of its frozen objects hold its truth."""
        rows = self._ask(f"SELECT week, slice, sink, state, generation FROM {self.place.region}_meta.moves")
        found = {
            (week, slice_): (generation or 0) + (sink == "frozen" and state in ("switched", "dropped"))
            for week, slice_, sink, state, generation in rows
        }
        return {unit: count for unit, count in found.items() if count}

    def states(self) -> dict[int, tuple[str, str]]:
        """week → (source, state)."""
        rows = self._ask(f"SELECT week, source, state FROM {self.place.region}_meta.moves")
        return {week: (source, state) for week, source, state in rows}

    def lane(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for week, event in self._ask(f"SELECT week, event FROM {self.place.region}_hot.lane"):
            yield week, decode(event)

    def in_lane(self, week: int) -> int:
        return sum(1 for found, _ in self.lane() if found == week)

    def pointers(self, week: int, slice_: int, shards: int) -> dict[int, tuple[str, int, str]]:
        """shard → (path below the table's root, bytes, SHA-256), for this N."""
        columns = "week, slice, shards, shard, path, bytes, sha256"
        rows = self._ask(f"SELECT {columns} FROM {self.place.region}_meta.pointers")
        return {row[3]: (row[4], row[5], row[6]) for row in rows if row[:3] == (week, slice_, shards) and row[4]}

    def root(self, slice_: int) -> Path:
        return self.place.bucket / "lake" / "messages" / f"s{slice_:03d}"

    def tables(self) -> set[str]:
        space = f"{self.place.region}_"
        rows = self._ask("SELECT keyspace_name, table_name FROM system_schema.tables")
        return {f"{keyspace.removeprefix(space)}.{name}" for keyspace, name in rows if keyspace.startswith(space)}

    def _add_table(self, rows: Rows, tier: str, week: int, faults: list[str]) -> None:
        space = f"{self.place.region}_{tier}"
        columns = (
            "conversation_id, message_id, sender_id, message_type, body, media_ref, reply_to, edit, deleted, server_ts"
        )
        found = [message_cells(row) for row in self._ask(f"SELECT {columns} FROM {space}.messages_w{week}")]
        reacted = "conversation_id, message_id, user_id, reaction"
        found += [reaction_cells(row) for row in self._ask(f"SELECT {reacted} FROM {space}.reactions_w{week}")]
        for key, cells in found:
            if week_of(key[1]) != week:
                faults.append(f"a message of week {week_of(key[1])} lies in {space}.messages_w{week}")
            add(rows, key, cells)

    def _add_files(self, rows: Rows, week: int, slice_: int, shards: int, is_whole: bool, faults: list[str]) -> None:
        """A supplement need not have a file in each shard."""
        pointers = self.pointers(week, slice_, shards)
        if is_whole and sorted(pointers) != list(range(shards)):
            faults.append(f"week {week} has pointers for shards {sorted(pointers)} of {shards}")
        named = {path for path, _, _ in pointers.values()}
        live = {path for path in live_paths(self.root(slice_)) if path.startswith(f"week={week}/")}
        if named != live:
            faults.append(f"week {week}: the Delta log has {len(live)} live files, the pointers name {len(named)}")
        for shard, (path, size_bytes, sha256) in pointers.items():
            data = (self.root(slice_) / path).read_bytes()
            if (len(data), hashlib.sha256(data).hexdigest()) != (size_bytes, sha256):
                faults.append(f"week {week} shard {shard}: the file is not the one that was written")
            found = file_cells(self.root(slice_) / path, faults)
            faults += misplaced(found, week, shard, shards)
            for key, cells in found:
                add(rows, key, cells)

    def _add_frozen(self, rows: Rows, week: int, slice_: int, generation: int, faults: list[str]) -> None:
        objects = [row for row in self.frozen() if row[:3] == (week, slice_, generation)]
        listed = [row for row in manifest(self.place.bucket, slice_) if row[:2] == (week, generation)]
        if sorted(row[3:] for row in objects) != sorted(row[2:] for row in listed) or not objects:
            faults.append(f"week {week} generation {generation}: the manifest is not what the ledger says")
        for _, _, _, shard, shards, key, size_bytes, sha256 in objects:
            path = self.place.bucket / key
            data = path.read_bytes()
            if (len(data), hashlib.sha256(data).hexdigest()) != (size_bytes, sha256):
                faults.append(f"week {week} shard {shard}: the frozen object is not the one that was written")
                continue
            found = [parquet_cells(row) for row in self.opener(key).rows(path)]
            faults += misplaced(found, week, shard, shards)
            for row_key, cells in found:
                add(rows, row_key, cells)

    def frozen(self) -> list[tuple[Any, ...]]:
        """(week, slice, generation, shard, N, object, bytes, SHA-256), without what was retired."""
        columns = "week, slice, generation, shard, shards, path, bytes, sha256"
        return [row for row in self._ask(f"SELECT {columns} FROM {self.place.region}_meta.frozen") if row[5]]

    def opener(self, key: str) -> Opener:
        space = f"{self.place.region}_vault"
        keys = dict(self._ask(f"SELECT user_id, wrapped FROM {space}.person_keys"))
        subjects = self._ask(f"SELECT object, reference, user_id FROM {space}.subjects")
        mine = {reference: (user, keys[user]) for found, reference, user in subjects if found == key}
        return Opener(self.place.configured_key, mine)

    def _check_weeks(self, rows: Rows, faults: list[str]) -> None:
        """A reader asks only the weeks that are listed for a conversation."""
        listed = set(self._ask(f"SELECT conversation_id, week FROM {self.place.region}_hot.conversation_weeks"))
        lacking = {(UUID(bytes=key[0]), week_of(key[1])) for key in rows} - listed
        if lacking:
            faults.append(f"{len(lacking)} weeks of conversations are not listed for readers")

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.session.execute(query)]


@contextmanager
def opened(place: Place, log: Path) -> Iterator[Checker]:
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(),
        row_factory=tuple_factory,
        consistency_level=ConsistencyLevel.QUORUM,
    )
    cluster = Cluster(
        [place.host], port=place.port, protocol_version=5, execution_profiles={EXEC_PROFILE_DEFAULT: profile}
    )
    try:
        yield Checker(place, cluster.connect(), log)
    finally:
        cluster.shutdown()


def finals(rows: Rows) -> dict[Key, Final]:
    return {key: cells.final(key) for key, cells in rows.items()}


def visible(rows: Mapping[Key, Final], conversation_id: bytes) -> list[Final]:
    """What a person sees of a conversation, newest first."""
    seen = [
        row._replace(reactions=tuple(one for one in row.reactions if one[2] is not None))
        for row in rows.values()
        if row.conversation_id == conversation_id and row.message_type is not None and not row.deleted
    ]
    return sorted(seen, key=lambda row: row.message_id, reverse=True)


def differences(found: Mapping[Key, Final], wanted: Mapping[Key, Final]) -> list[str]:
    faults = []
    if lost := wanted.keys() - found.keys():
        faults.append(f"{len(lost)} rows are lost")
    if strangers := found.keys() - wanted.keys():
        faults.append(f"{len(strangers)} rows were never sent")
    for key in sorted(wanted.keys() & found.keys()):
        columns = [name for name, a, b in zip(Final._fields, found[key], wanted[key], strict=True) if a != b]
        if columns:
            faults.append(f"row {key[1].hex()} differs in {', '.join(columns)}")
    return faults


def misplaced(found: Iterable[tuple[Key, Cells]], week: int, shard: int, shards: int) -> Iterator[str]:
    """A file has its own week and shard, in the order of its keys, each once."""
    last: Key = (b"", b"")
    for key, _ in found:
        if key == last:
            yield f"week {week} shard {shard}: row {key[1].hex()} is there twice"
        elif key < last:
            yield f"week {week} shard {shard}: row {key[1].hex()} is out of order"
        if week_of(key[1]) != week or shard_of(key[0], shards) != shard:
            yield f"week {week} shard {shard}: row {key[1].hex()} belongs elsewhere"
        last = key


def add(rows: Rows, key: Key, cells: Cells) -> None:
    rows.setdefault(key, Cells()).absorb(cells)


def later(a: Cell | None, b: Cell | None) -> Cell | None:
    """Event ids are in time order."""
    if a is None or b is None:
        return a or b
    return max(a, b, key=lambda cell: (cell[0], cell[1] or b""))


def cells_of(event: Mapping[str, Any]) -> tuple[Key, Cells]:
    """Of an event as the client wrote it down, or as the lane keeps it: bytes are hex."""
    raw: dict[str, Any] = {
        name: bytes.fromhex(value) if is_hex(name, value) else value for name, value in event.items()
    }
    key = (raw["conversation_id"], raw["message_id"])
    match raw["kind"]:
        case "MessageSent":
            names = ("sender_id", "message_type", "body", "media_ref", "reply_to")
            return key, Cells({name: raw[name] for name in names} | {"server_us": raw["server_ms"] * 1000})
        case "MessageEdited":
            return key, Cells(edit=(raw["event_id"], raw["body"]), editor=raw["user_id"])
        case "MessageDeleted":
            return key, Cells(deleted=True)
        case "ReactionSet":
            return key, Cells(reactions={raw["user_id"]: (raw["event_id"], raw["reaction"])})
    raise AssertionError(f"an event of unknown kind {raw['kind']}")


def is_hex(name: str, value: object) -> bool:
    return isinstance(value, str) and name not in ("kind", "media_ref")


def message_cells(row: tuple[Any, ...]) -> tuple[Key, Cells]:
    conversation, message, sender, kind, body, media, reply_to, edit, deleted, server_ts = row
    plain = {"sender_id": sender, "message_type": kind, "body": body, "media_ref": media}
    plain |= {"reply_to": ordered(reply_to) if reply_to else None, "server_us": microseconds(server_ts)}
    cell = (ordered(edit[0]), edit[1]) if edit else None
    return (conversation.bytes, ordered(message)), Cells(plain, cell, editor_in(plain), bool(deleted))


def editor_in(plain: dict[str, Any]) -> int | None:
    """Takes the author of an edit whose message is not here out of the message's own cells."""
    return plain.pop("sender_id") if plain["message_type"] is None else None


def reaction_cells(row: tuple[Any, ...]) -> tuple[Key, Cells]:
    conversation, message, user, cell = row
    return (conversation.bytes, ordered(message)), Cells(reactions={user: (ordered(cell[0]), cell[1])})


def file_cells(path: Path, faults: list[str]) -> list[tuple[Key, Cells]]:
    try:
        with pq.ParquetFile(path) as file:
            return [parquet_cells(row) for row in file.read().to_pylist()]
    except (OSError, ValueError) as fault:
        faults.append(f"a file of {path.parent.parent.name} does not decode ({type(fault).__name__})")
        return []


def parquet_cells(row: Mapping[str, Any]) -> tuple[Key, Cells]:
    plain = {name: row[name] for name in ("sender_id", "message_type", "media_ref", "reply_to")}
    plain["server_us"] = row["server_us"] if "server_us" in row else microseconds(row["server_ts"])
    edit = (row["edit_id"], row["body"]) if row["edit_id"] else None
    if not edit:
        plain["body"] = row["body"]
    reactions = {one["user_id"]: (one["event_id"], one["reaction"]) for one in row["reactions"] or ()}
    return (row["conversation_id"], row["message_id"]), Cells(plain, edit, editor_in(plain), row["deleted"], reactions)


def manifest(bucket: Path, slice_: int) -> list[tuple[Any, ...]]:
    """(week, generation, shard, N, object, bytes, SHA-256) of each frozen object that its Delta table lists."""
    root, found = bucket / "lake" / "frozen" / f"s{slice_:03d}", []
    for path in live_paths(root):
        week, generation = (int(folder.partition("=")[2]) for folder in path.split("/")[:2])
        with pq.ParquetFile(root / path) as file:
            rows = file.read(["shard", "shards", "object", "size_bytes", "sha256"]).to_pylist()
        found += [(week, generation, *row.values()) for row in rows]
    return found


def live_paths(root: Path) -> set[str]:
    """Replays the Delta log by hand, from its newest checkpoint on."""
    log = root / "_delta_log"
    newest = max(log.glob("*.checkpoint.parquet"), default=None)
    added = pq.read_table(newest, columns=["add"])["add"].to_pylist() if newest else []
    live: set[str] = {add["path"] for add in added if add}
    later = [one for one in log.glob("*.json") if newest is None or one.name[:20] > newest.name[:20]]
    for version in sorted(later):
        for line in version.read_text().splitlines():
            action = json.loads(line)
            live -= {action["remove"]["path"]} if "remove" in action else set()
            live |= {action["add"]["path"]} if "add" in action else set()
    return live


def digest(rows: Iterable[Final]) -> str:
    """From docs/architecture.md: the sum of BLAKE3 hashes of the encoded rows, mod 2^128."""
    total = sum(int.from_bytes(blake3(encoded(row)).digest()[:16], "big") for row in rows)
    return f"{total % 2**128:032x}"


def encoded(row: Final) -> bytes:
    media = row.media_ref.encode() if row.media_ref is not None else None
    columns: list[bytes | int | None] = [row.conversation_id, row.message_id, row.sender_id, row.message_type]
    columns += [row.body, media, row.reply_to, row.edit_id, bytes([row.deleted]), row.server_us, len(row.reactions)]
    for reaction in row.reactions:
        columns += reaction
    return b"\x01" + b"".join(map(column, columns))


def column(value: bytes | int | None) -> bytes:
    if value is None:
        return b"\x00"
    data = struct.pack("<q", value) if isinstance(value, int) else value
    return b"\x01" + struct.pack("<I", len(data)) + data


def ordered(timeuuid: UUID) -> bytes:
    """A TIMEUUID's 16 bytes in time order: 48 high bits of its 60-bit time, version 6, 12 low bits, the rest."""
    ticks = timeuuid.time
    return struct.pack(">IHH", ticks >> 28, ticks >> 12 & 0xFFFF, 0x6000 | ticks & 0xFFF) + timeuuid.bytes[8:]


def week_of(message_id: bytes) -> int:
    high, middle, low = struct.unpack(">IHH", message_id[:8])
    ticks = high << 28 | middle << 12 | low & 0xFFF
    week: int = ((ticks - 0x01B21DD213814000) // 10 - FIRST_MONDAY_US) // MICROSECONDS_IN_WEEK
    return week


def shard_of(conversation_id: bytes, shards: int) -> int:
    """The ring after its smallest token, which is never assigned, in equal parts."""
    token: int = Murmur3Token.hash_fn(conversation_id)
    return max(token + 2**63 - 1, 0) * shards >> 64


def microseconds(when: datetime | None) -> int | None:
    if when is None:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
