"""What is measured is measured on right rows: the corpus is canonical, and a bench first says that rows are equal."""

import json
from itertools import pairwise

import pyarrow as pa
import pytest

from bench import bytes as measuring_bytes
from bench import corpus, rewrite
from bench import readers as reading
from core import ids, weeks
from core.overlay import canonical
from core.rows import from_batch, keys_of
from schemas.tables import CANONICAL


def test_the_corpus_is_canonical_rows_of_one_week() -> None:
    table = corpus.rows(3000)
    assert table.schema == CANONICAL
    assert all(one < other for one, other in pairwise(keys_of(table)))
    for row in from_batch(table):
        assert row == canonical(row)
        assert ids.is_ordered_id(row.message_id)
        assert row.server_ts is not None
        assert (weeks.of_id(row.message_id), weeks.of_instant(row.server_ts)) == (corpus.WEEK, corpus.WEEK)
        assert [one.user_id for one in row.reactions] == sorted({one.user_id for one in row.reactions})
        assert all(ids.is_ordered_id(one.event_id) for one in row.reactions)


def test_the_corpus_is_always_the_same() -> None:
    assert corpus.rows(500).equals(corpus.rows(500))
    assert not corpus.rows(500).equals(corpus.rows(500, seed=1))


def test_more_than_the_sample_has_is_other_conversations() -> None:
    table = corpus.rows(60_000)
    assert len(set(keys_of(table))) == table.num_rows == 60_000


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    found: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_fold_encodes_little_more_than_what_it_touches(capsys: pytest.CaptureFixture[str]) -> None:
    assert rewrite.main(["--rows", "20000", "--conversations", "2", "--rounds", "1", "--without-spark"]) == 0
    told = last_line(capsys)
    assert told["equal"]
    assert told["reencoded"] <= 1.1
    assert told["bytes_copied"] > told["bytes_reencoded"]


def test_other_rows_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "_plain_rows", lambda case: case.rows)
    assert rewrite.main(["--rows", "2000", "--conversations", "2", "--rounds", "1", "--without-spark"]) == 1
    told = last_line(capsys)
    assert (told["equal"], "reencoded" in told) == (False, False)


def test_bytes_are_counted_once_engines_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert measuring_bytes.main(["--rows", "8000", "--rounds", "1", "--without-spark"]) == 0
    told = last_line(capsys)
    assert told["equal"]
    assert 0 < told["metadata_bytes"] < told["plain_metadata_bytes"]


def test_an_engine_with_other_rows_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def short(_: object) -> pa.Table:
        return corpus.rows(1999)

    monkeypatch.setattr(reading, "through_duckdb", short)
    assert measuring_bytes.main(["--rows", "2000", "--rounds", "1", "--without-spark"]) == 1
    assert not last_line(capsys)["equal"]
