"""The demo's history file: an import of it gives the very messages that a replay of those weeks would send."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from core import ids
from ops import history, sample

START, END = datetime(2025, 1, 6, tzinfo=UTC), datetime(2025, 1, 20, tzinfo=UTC)
REGIONS = ("us", "eu")


def rows_of(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def message_of(row: dict[str, object]) -> tuple[object, ...]:
    names = (history.SOURCE, str(row["conversation"]))
    assert isinstance(row["sent_at"], datetime)
    message_id = ids.imported_id(row["sent_at"], *names, str(row["id"]))
    return ids.conversation_uuid(*names), message_id, row["sender"], row["body"], row["media"]


def test_every_message_is_in_the_file_of_its_region(tmp_path: Path) -> None:
    found: list[tuple[object, ...]] = []
    for region in REGIONS:
        path = tmp_path / "demo" / f"{region}.parquet"
        written = history.write(path, START, END, region, REGIONS)
        mine = [message_of(row) for row in rows_of(path)]
        assert len(mine) == written > 300
        assert {
            sample.region_of(conversation, REGIONS) for conversation, *_ in mine if isinstance(conversation, bytes)
        } == {region}
        found += mine
    wanted = [
        (message.conversation_id, message.message_id, message.sender_id, message.body, message.media_ref)
        for message in sample.messages(START, END)
    ]
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_it_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        history.write(tmp_path / name, START, END, "us", REGIONS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
