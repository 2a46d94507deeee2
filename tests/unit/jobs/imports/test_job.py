"""Laws of an import, on a real directory and a ledger in memory: twice is once, no order and no split matters, counts
add up, and whoever is stopped anywhere goes on to the same end."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import ids, imports, ring, rows, weeks
from core.digest import of_rows
from core.errors import BlockedError, DamagedError, RefusedError
from core.ledger import Run
from core.moves import COLD_WARM, State, Unit, born_cold
from core.overlay import Row, merge_all, row_of
from core.settings import Objects as ObjectSettings
from core.settings import Settings
from jobs.imports import job, landing, placing
from jobs.imports.landing import Sinks
from jobs.imports.splitting import PART_BYTES
from lakehouse import incoming
from lakehouse.incoming import inspect
from lakehouse.runs import read_run
from lakehouse.spill import Spill, alone
from schemas.events import Event
from stores.buckets import open_objects
from stores.cassandra import Statement
from stores.memory_ledger import MemoryLedger

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OLD = datetime(2020, 1, 1, tzinfo=UTC)
SOURCE = "archive"
Record = dict[str, Any]
ARROW_COLUMNS: Any = [
    ("conversation", pa.string()),
    ("sender", pa.int64()),
    ("sent_at", pa.timestamp("us", "UTC")),
    ("body", pa.string()),
    ("id", pa.string()),
    ("media", pa.string()),
    ("edited_at", pa.timestamp("us", "UTC")),
    ("deleted", pa.bool_()),
]
ARROW = pa.schema(ARROW_COLUMNS)


@dataclass
class Shore:
    """Where an import lands, and what came."""

    folder: Path
    config: Settings
    ledger: MemoryLedger
    statements: list[Statement] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    attempts: int = 0

    def write(self, batches: Iterable[Sequence[Statement]]) -> None:
        for batch in batches:
            partitions = {(one.query, one.params[0]) for one in batch}
            assert len({key for _, key in partitions}) == 1, "a batch is of one partition key"
            self.statements += batch

    def send(self, events: Iterable[Event]) -> None:
        self.events += events

    def run(self, paths: Sequence[Path], now: datetime = NOW, part_bytes: int = PART_BYTES) -> Record:
        columns = imports.parse_map([])
        order = job.Order("us", tuple(paths), columns, SOURCE)
        files, _ = inspect(order.files, columns)
        import_id = job.identity(files, order)
        folder = self.config.state_dir / "imports" / import_id
        self.attempts += 1
        attempt = f"{self.attempts:08x}"
        sinks = Sinks(import_id, attempt, self.ledger, self.objects, self.write, self.send, 2000)
        with alone(folder):
            facts = (self.config, now, order, tuple(files), folder, sinks, self.said.append)
            return job.Import(*facts, part_bytes=part_bytes).done()

    @property
    def objects(self) -> Any:
        return open_objects(self.config.objects, "us")

    def rows(self) -> dict[tuple[bytes, bytes], Row]:
        """Of runs and events, merged as a fold and a consumer would."""
        found = [row for unit in self.ledger.units() for row in self.in_runs(unit.week, unit.slice)]
        return merge_all([*found, *map(row_of, self.events)])

    def in_runs(self, week: int, slice_: int) -> Iterator[Row]:
        for run in self.ledger.runs(week, slice_):
            held = [row for batch in read_run(self.objects, run, ring.WHOLE) for row in rows.from_batch(batch)]
            assert run.digest == of_rows(held)
            assert {(weeks.of_id(row.message_id), slice_) for row in held} == {(week, slice_)}
            yield from held

    def quarantined(self) -> Counter[tuple[str, str]]:
        """Reason and row."""
        found: Counter[tuple[str, str]] = Counter()
        for one in self.objects.list("lake/quarantine/import_id="):
            table = pq.read_table(self.folder / "objects" / "firn-us" / one.key, partitioning=None)
            found.update((row["reason"], row["row"].decode()) for row in table.to_pylist())
        return found

    def beside(self, table: str) -> dict[Any, Any]:
        """By key: the value whose write has the latest timestamp."""
        won: dict[Any, tuple[int, Any]] = {}
        for one in self.statements:
            if f".{table} " in one.query:
                key, value, at = (
                    (one.params[:1], one.params[1], one.params[2])
                    if table == "heads"
                    else (one.params[:2], one.params[2] if len(one.params) > 3 else True, one.params[-1])
                )
                won[key] = max(won.get(key, (at, value)), (at, value), key=lambda cell: cell[0])
        return {key: value for key, (_, value) in won.items()}


@contextmanager
def shore(folder: Path) -> Iterator[Shore]:
    config = Settings(
        state_dir=folder / "state", regions=("us",), objects=ObjectSettings(url=f"file:{folder / 'objects'}")
    )
    made = Shore(folder, config, MemoryLedger("us"))
    made.ledger.begin(weeks.of_instant(NOW) - 1)
    yield made


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Shore]:
    with shore(tmp_path) as made:
        yield made


def record(number: int = 0, **changes: Any) -> Record:
    when = OLD + timedelta(days=number)
    return {
        "conversation": f"c{number % 3}",
        "sender": number % 5,
        "sent_at": when,
        "body": f"b{number}",
        "id": str(number),
    } | changes


def ndjson(path: Path, records: Sequence[Record], blanks: int = 0) -> Path:
    lines = [json.dumps(one, default=lambda when: when.isoformat()) for one in records]
    path.write_text("\n" * blanks + "".join(f"{line}\n" for line in lines))
    return path


def parquet(path: Path, records: Sequence[Record], blanks: int = 0) -> Path:
    table = pa.Table.from_pylist(list(records), schema=ARROW.with_metadata({"firn": str(blanks)}))
    pq.write_table(table, path)
    return path


def counts(told: Record) -> Record:
    return {name: told[name] for name in ("read", "placed", "repeated", "quarantined", "units")}


def require_whole(told: Record, records: Sequence[Record]) -> None:
    fates = sum(told["placed"].values()) + told["repeated"] + sum(told["quarantined"].values())
    assert told["read"] == fates == len(records)


# An oracle of its own: what a set of records comes to


def comes_to(records: Sequence[Record]) -> tuple[Counter[Any], int, int]:
    """Facts of the messages, rows repeated, rows in conflict."""
    named: dict[Any, list[Record]] = {}
    found: Counter[Any] = Counter()
    repeated = conflicts = 0
    for one in records:
        if one["id"] is None:
            found[facts_of([one])] += 1
        else:
            named.setdefault((one["conversation"], one["id"]), []).append(one)
    for group in named.values():
        distinct = [one for number, one in enumerate(group) if one not in group[:number]]
        versions = {one["edited_at"] for one in distinct}
        same = {(one["sender"], one["sent_at"], one["media"]) for one in distinct}
        if len(versions) < len(distinct) or len(same) > 1:
            conflicts += len(group)
        else:
            repeated += len(group) - len(distinct)
            found[facts_of(distinct)] += 1
    return found, repeated, conflicts


def facts_of(versions: Sequence[Record]) -> Any:
    last = max(versions, key=lambda one: one["edited_at"] or OLD)
    deleted = any(one["deleted"] for one in versions)
    place = (ids.conversation_uuid(SOURCE, last["conversation"]), last["sender"], last["sent_at"])
    own = None if last["id"] is None else ids.imported_id(last["sent_at"], SOURCE, last["conversation"], last["id"])
    said = (None, None, None) if deleted else (last["body"].encode(), last["media"], last["edited_at"])
    return place, own, deleted, said


def facts_in(found: Iterable[Row], named: set[bytes]) -> Counter[Any]:
    return Counter(
        (
            (row.conversation_id, row.sender_id, row.server_ts),
            row.message_id if row.message_id in named else None,
            row.deleted,
            (row.body, row.media_ref, row.edit_id and ids.instant(row.edit_id)),
        )
        for row in found
    )


few_records = st.lists(
    st.builds(
        lambda conversation, sender, day, body, own, media, edited, deleted: {
            "conversation": conversation,
            "sender": sender,
            "sent_at": OLD + timedelta(days=day),
            "body": body,
            "id": own,
            "media": media,
            "edited_at": edited and OLD + timedelta(days=30 + edited),
            "deleted": deleted,
        },
        st.sampled_from(["a", "b"]),
        st.integers(1, 2),
        st.sampled_from([0, 0, 6]),
        st.sampled_from(["x", "y"]),
        st.none() | st.sampled_from(["1", "2", "3"]),
        st.sampled_from([None, None, None, "m"]),
        st.sampled_from([None, None, 1, 2]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=14,
)


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[list[Record], list[list[Record]]]:
    """Records, and the same ones in any order and any split."""
    records = draw(few_records)
    ordered = draw(st.permutations(records))
    cuts = sorted(draw(st.lists(st.integers(0, len(records)), max_size=2)))
    bounds = [0, *cuts, len(records)]
    return records, [list(ordered[start:end]) for start, end in pairwise(bounds)]


@given(case=laid_out(), forms=st.lists(st.sampled_from([ndjson, parquet]), min_size=3, max_size=3))
@settings(max_examples=40)
def test_no_order_and_no_split_matters_and_every_row_is_accounted_for(
    case: tuple[list[Record], list[list[Record]]],
    forms: list[Callable[..., Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    records, split = case
    with shore(tmp_path_factory.mktemp("one")) as one, shore(tmp_path_factory.mktemp("other")) as other:
        first = one.run([ndjson(one.folder / "all", records)])
        paths = [
            form(other.folder / f"f{number}", part, number)
            for number, (form, part) in enumerate(zip(forms, split, strict=False))
        ]
        second = other.run(paths, part_bytes=2000)
        require_whole(first, records)
        assert counts(first) == counts(second)
        assert one.rows() == other.rows()
        assert one.quarantined() == other.quarantined()
        expected, repeated, conflicts = comes_to(records)
        named = {own for (_, own, _, _) in expected if own}
        assert facts_in(one.rows().values(), named) == expected
        assert (first["repeated"], sum(first["quarantined"].values())) == (repeated, conflicts)
        for table in ("members", "memberships", "heads", "conversation_weeks"):
            assert one.beside(table) == other.beside(table)


def everything(folder: Path) -> tuple[list[Path], list[Record]]:
    """A bit of all: several weeks, repeats, conflicts, versions, bad rows, rows without an id; two forms."""
    good = [record(number) for number in range(40)]
    edited = record(3, body="new", edited_at=OLD + timedelta(days=50))
    anonymous = [record(5, id=None)] * 3
    clash = [record(7, body="other"), record(8, sent_at=OLD)]
    bad = [record(41, sender="x"), record(42, sent_at="never"), record(43, sent_at="1969-01-01T00:00:00Z")]
    first = [*good, edited, *anonymous, good[0]]
    second = [*clash, *bad, *good[:5], anonymous[0]]
    return [parquet(folder / "a.parquet", first), ndjson(folder / "b.ndjson", second)], [*first, *second]


def test_a_bit_of_everything(here: Shore) -> None:
    paths, records = everything(here.folder)
    told = here.run(paths)
    require_whole(told, records)
    assert told["placed"] == {"kafka": 0, "runs": 43}
    assert told["repeated"] == 6
    assert told["quarantined"] == {
        placing.OTHER_CONTENT: 4,
        "sender is not a 64-bit number": 1,
        f"sent_at is not {imports.KINDS['sent_at']}": 1,
        "sent_at is before the first week (1970-01-05)": 1,
    }
    assert len(here.rows()) == 38 + 4
    clashing = {(one["file"], one["line"]) for one in told["listed"] if one["reason"] == placing.OTHER_CONTENT}
    assert clashing == {("a.parquet", 8), ("a.parquet", 9), ("b.ndjson", 1), ("b.ndjson", 2)}
    assert len(told["listed"]) == 7
    assert sum(here.quarantined().values()) == 7
    assert not list((here.config.state_dir / "imports").iterdir())


def test_twice_is_once(here: Shore) -> None:
    paths, _ = everything(here.folder)
    first, before = here.run(paths), list(here.objects.list(""))
    found, statements = here.rows(), len(here.statements)
    second = here.run(list(reversed(paths)))
    assert counts(first) == counts(second)
    assert here.rows() == found
    assert [one for one in here.objects.list("") if not one.key.startswith("imports/")] == [
        one for one in before if not one.key.startswith("imports/")
    ]
    assert len(here.statements) == statements, "what the ledger knows is not written again"


def test_a_file_that_is_part_of_another_import_adds_nothing(here: Shore) -> None:
    paths, _ = everything(here.folder)
    here.run(paths)
    found = here.rows()
    here.run([ndjson(here.folder / "c.ndjson", [record(number) for number in (1, 2, 3)])])
    assert here.rows() == found


class Stopped(BaseException):
    """As a signal would: nothing in the product catches it."""


@contextmanager
def stopping(share: float) -> Iterator[list[int]]:
    """Whatever leaves a trace is counted, before and after it happens; at that share of `CALLS` the process stops."""
    calls = [0]

    def count() -> None:
        calls[0] += 1
        if calls[0] == round(share * CALLS):
            raise Stopped

    def deadly(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*given_: Any, **named: Any) -> Any:
            count()
            result = real(*given_, **named)
            count()
            return result

        patch.setattr(owner, name, call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incoming, "CHUNK_ROWS", 7)
        for owner, name in TRACES:
            deadly(owner, name)
        yield calls


TRACES = (
    (Spill, "append"),
    (Spill, "note"),
    (Shore, "write"),
    (Shore, "send"),
    (landing, "write_run"),
    (MemoryLedger, "create"),
    (MemoryLedger, "add_run"),
    (job, "keep"),
    (job, "_put_receipt"),
    (job, "discard"),
)
CALLS = 355  # of an import of `everything` in small parts; a test counts them
SMALL = 3000


def stopped(here: Shore, share: float) -> None:
    """An import of `everything` that came so far, at most."""
    paths, _ = everything(here.folder)
    with stopping(share), suppress(Stopped):
        here.run(paths, part_bytes=SMALL)


def test_an_import_of_everything_leaves_so_many_traces(here: Shore) -> None:
    """Else the law below would stop nobody near the end."""
    with stopping(-1) as calls:
        here.run(everything(here.folder)[0], part_bytes=SMALL)
    assert 0.95 * CALLS < calls[0] < CALLS


@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=3))
@settings(max_examples=20)
def test_whoever_is_stopped_anywhere_goes_on_to_the_same_end(
    shares: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with shore(tmp_path_factory.mktemp("calm")) as calm, shore(tmp_path_factory.mktemp("stormy")) as stormy:
        for one in (calm, stormy):  # a week that goes through Kafka
            one.ledger.create(Unit("us", weeks.of_instant(OLD + timedelta(days=20)), 0))
        expected = calm.run(everything(calm.folder)[0], part_bytes=SMALL)
        for share in shares:
            stopped(stormy, share)
        told = stormy.run(everything(stormy.folder)[0], part_bytes=SMALL)
        assert counts(told) == counts(expected)
        assert stormy.rows() == calm.rows()
        assert stormy.quarantined() == calm.quarantined()
        for table in ("members", "memberships", "heads", "conversation_weeks"):
            assert stormy.beside(table) == calm.beside(table)


def test_going_on_does_not_read_what_was_read(here: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, records = everything(here.folder)
    stopped(here, 0.3)
    read: list[int] = []
    real = incoming.read

    def counted(*given_: Any) -> Any:
        for chunk in real(*given_):
            read.append(chunk.rows)
            yield chunk

    monkeypatch.setattr("jobs.imports.sorting.read", counted)
    here.run(paths)
    assert sum(read) < len(records) - 7


# Where rows go


def test_weeks_that_the_ledger_has_in_hot_or_warm_go_through_kafka_and_are_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with shore(tmp_path / "a") as by_run, shore(tmp_path / "b") as by_log:
        records = [record(number, media="m" if number % 2 else None, deleted=number % 7 == 0) for number in range(21)]
        records += [record(number, edited_at=OLD + timedelta(days=40), body="new") for number in (1, 2)]
        records[1]["media"] = records[-2]["media"] = None
        for number in range(4):
            by_log.ledger.create(Unit("us", weeks.of_instant(OLD) + number, 0))
        first = by_run.run([ndjson(tmp_path / "x", records)])
        second = by_log.run([ndjson(tmp_path / "x", records)])
        assert first["placed"] == {"kafka": 0, "runs": 23}
        assert second["placed"] == {"kafka": 23, "runs": 0}
        assert by_log.statements == []
        assert by_run.rows() == by_log.rows()


def test_a_run_for_a_week_that_was_thawed_meanwhile_goes_through_the_log_too(here: Shore) -> None:
    """The unit lies in cold when the import looks, and in warm when the run is registered: no fold would come."""
    week = weeks.of_instant(OLD)
    here.ledger.create(replace(born_cold("us", week, 0), shards=1))
    add_run = here.ledger.add_run

    def thawed_before(run: Run) -> bool:
        known = here.ledger.unit(week, 0)
        assert known
        here.ledger.change(known, replace(known, move=COLD_WARM, state=State.SWITCHED, revision=known.revision + 1))
        return add_run(run)

    here.ledger.add_run = thawed_before  # type: ignore[method-assign]
    done = here.run([ndjson(here.folder / "x", [record(0)])])
    assert done["placed"] == {"kafka": 0, "runs": 1}
    assert len(here.events) == 1
    assert all(run.folded for run in here.ledger.runs(week, 0))


def test_a_week_that_nobody_made_tables_for_is_refused_and_goes_on_later(here: Shore) -> None:
    young = record(1, sent_at=NOW - timedelta(days=2))
    paths = [ndjson(here.folder / "x", [record(0), young])]
    with pytest.raises(RefusedError, match="no tables are there yet for 2026-W09") as refused:
        here.run(paths)
    assert "./firn weeks --region us --now 2026-03-02T00:00:00Z" in refused.value.do
    assert (here.statements, here.events, here.ledger.units()) == ([], [], [])
    here.ledger.create(Unit("us", weeks.of_instant(young["sent_at"]), 0))
    here.said.clear()
    told = here.run(paths)
    assert told["placed"] == {"kafka": 1, "runs": 1}
    assert not [line for line in here.said if line.startswith("read")]


def test_an_old_week_is_born_cold_and_a_known_one_is_left_as_it_is(here: Shore) -> None:
    week = weeks.of_instant(OLD)
    known = replace(born_cold("us", week + 1, 0), shards=4, revision=7)
    here.ledger.create(known)
    here.run([ndjson(here.folder / "x", [record(0), record(7)])])
    assert here.ledger.units() == [born_cold("us", week, 0), known]
    assert [len(here.ledger.runs(unit.week, 0)) for unit in here.ledger.units()] == [1, 1]


def test_what_readers_ask_first_is_known(here: Shore) -> None:
    records = [record(0, sender=1, sent_at=OLD + timedelta(days=day), id=str(day)) for day in (9, 0, 16)]
    records += [record(0, sender=2, sent_at=OLD + timedelta(days=day), id=str(day)) for day in (2, 1)]
    here.run([ndjson(here.folder / "x", records)])
    conversation_id = ids.conversation_uuid(SOURCE, "c0")
    first = weeks.of_instant(OLD)
    assert {key[1] for key in here.beside("conversation_weeks")} == {first, first + 1, first + 2}
    assert {key[1]: when for key, when in here.beside("members").items()} == {1: OLD, 2: OLD + timedelta(days=1)}
    assert {key[0]: when for key, when in here.beside("memberships").items()} == {1: OLD, 2: OLD + timedelta(days=1)}
    (head,) = here.beside("heads").values()
    assert ids.instant(ids.from_timeuuid(head[0])) == OLD + timedelta(days=16)
    assert {key[0].bytes for key in here.beside("members")} == {conversation_id}


def test_a_heavy_unit_is_split_and_one_conversation_never(here: Shore) -> None:
    quick = [record(0, conversation=f"c{number}", id=str(number)) for number in range(200)]
    heavy = [record(0, conversation="heavy", id=f"h{number}", body="x" * 500) for number in range(100)]
    told = here.run([ndjson(here.folder / "x", [*quick, *heavy])], part_bytes=20_000)
    (unit,) = here.ledger.units()
    found = [
        [row for batch in read_run(here.objects, run, ring.WHOLE) for row in rows.from_batch(batch)]
        for run in here.ledger.runs(unit.week, 0)
    ]
    assert told["runs"] == len(found) > 4
    assert sum(map(len, found)) == 300
    spans = sorted((ring.token(run[0].conversation_id), ring.token(run[-1].conversation_id)) for run in found)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert [len({row.conversation_id for row in run}) for run in found if len(run) >= 100] == [1]


@pytest.mark.parametrize("slices", [2, 16])
def test_a_run_lies_in_one_slice(here: Shore, slices: int) -> None:
    here.config = replace(here.config, layout=replace(here.config.layout, slices=slices))
    here.run([ndjson(here.folder / "x", [record(number, conversation=str(number)) for number in range(60)])])
    for unit in here.ledger.units():
        for row in here.in_runs(unit.week, unit.slice):
            assert ring.part_of(ring.token(row.conversation_id), slices) == unit.slice
    assert len(here.rows()) == 60


# What can go wrong between one try and the next


def test_a_region_that_was_made_anew_gets_all_of_it_again(here: Shore) -> None:
    paths, _ = everything(here.folder)
    stopped(here, 0.8)
    assert any(here.ledger.runs(unit.week, 0) for unit in here.ledger.units())
    here.ledger = MemoryLedger("us")
    here.ledger.begin(weeks.of_instant(NOW))
    told = here.run(paths)
    assert "what this import had placed is gone: it begins anew" in here.said
    assert told["placed"]["runs"] == 43
    assert len(here.rows()) == 42


def test_a_spill_that_was_damaged_is_thrown_away(here: Shore) -> None:
    paths, records = everything(here.folder)
    stopped(here, 0.8)
    for path in (here.config.state_dir / "imports").rglob("rows/*/*"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BlockedError, match="is damaged") as blocked:
        here.run(paths)
    assert "begins anew" in blocked.value.do
    require_whole(here.run(paths), records)
    assert len(here.rows()) == 42


def test_a_file_that_changes_while_it_is_read_leaves_nothing_behind(
    here: Shore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ndjson(here.folder / "x", [record(0)])
    real = incoming.read

    def changing(*given_: Any) -> Any:
        yield from real(*given_)
        path.write_text(path.read_text() + "\n")

    monkeypatch.setattr("jobs.imports.sorting.read", changing)
    with pytest.raises(RefusedError, match="changed while it was read"):
        here.run([path])
    assert not list((here.config.state_dir / "imports").glob("*/"))
    assert (here.statements, here.ledger.units()) == ([], [])


def test_a_parquet_file_with_changed_pages_places_nothing(here: Shore) -> None:
    path = here.folder / "x.parquet"
    table = pa.Table.from_pylist([record(number, body=f"{number:01000}") for number in range(99)], schema=ARROW)
    pq.write_table(table, path, compression="none", write_page_checksum=True, row_group_size=50)
    data = bytearray(path.read_bytes())
    data[data.index(b"0000090") - 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"x\.parquet does not decode"):
        here.run([path])
    assert not list((here.config.state_dir / "imports").glob("*/"))
    assert (here.statements, here.ledger.units()) == ([], [])


def test_what_was_in_the_future_is_placed_when_its_time_has_come(here: Shore) -> None:
    ahead = record(1, sent_at=OLD + timedelta(days=3))
    paths = [ndjson(here.folder / "x", [record(0), ahead])]
    here.ledger = MemoryLedger("us")
    here.ledger.begin(weeks.of_instant(NOW))
    first = here.run(paths, now=OLD + timedelta(days=1))
    assert first["quarantined"] == {"sent_at is in the future": 1}
    assert not list(here.objects.list("imports/")), "a later time would tell more, so there is no receipt"
    second = here.run(paths)
    assert second["placed"]["runs"] == 2
    assert len(here.rows()) == 2
    assert sum(here.quarantined().values()) == 1, "what was quarantined stays told"


def test_counts_that_do_not_add_up_are_damage(here: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "REPEATED", 12345)
    paths, _ = everything(here.folder)
    with pytest.raises(DamagedError, match=r"56 rows were read, and the fate of 50 is known"):
        here.run(paths)


def test_an_import_is_named_by_its_bytes_and_by_all_that_changes_what_they_become(tmp_path: Path) -> None:
    a, b = ndjson(tmp_path / "a", [record(0)]), ndjson(tmp_path / "b", [record(1)])

    def name(paths: Sequence[Path], specs: Sequence[str] = (), source: str = "s", region: str = "us") -> str:
        columns = imports.parse_map(specs)
        files, _ = inspect(paths, columns)
        return job.identity(files, job.Order(region, tuple(paths), columns, source))

    assert name([a, b]) == name([b, a]) == name([a, b, a], ["id=id"])
    (tmp_path / "moved").mkdir()
    assert name([a]) == name([a.rename(tmp_path / "moved" / "c")])
    others = [name([b]), name([b], ["media=body"]), name([b], source="t"), name([b], region="eu")]
    assert len(set(others)) == 4


def test_a_region_is_named_unless_there_is_only_one() -> None:
    one, two = Settings(regions=("us",)), Settings(regions=("us", "eu"))
    assert job.one_region(one, None) == "us"
    assert job.one_region(two, ["eu"]) == "eu"
    for config, named in ((two, None), (two, ["us", "eu"]), (one, ["mars"])):
        with pytest.raises(RefusedError):
            job.one_region(config, named)


@pytest.mark.parametrize("source", ["", "a\x1fb", "a\nb"])
def test_a_source_is_plain_text(source: str) -> None:
    with pytest.raises(RefusedError):
        job.named_source(source)
