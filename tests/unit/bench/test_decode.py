"""The bench of the decoder tells what it should, and a decoder that is quick and wrong does not pass it."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from bench import decode

SMALL = ["--rows", "300", "--page-rows", "100", "--rounds", "1"]


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_the_last_line_has_the_figures_and_the_guard(capsys: pytest.CaptureFixture[str]) -> None:
    assert decode.main(SMALL) == 0
    found = told(capsys)
    assert found["equal"]
    assert found["rows"] == 300
    assert found["bytes_per_row"] > 100
    assert found["speedup"] == min(way["speedup"] for way in found["ways"].values())
    assert set(found["ways"]) == {"v4", "v4_lz4", "v5", "v5_lz4"}
    assert all(found["guard"].values())  # there were nulls, empty bodies and edits


def test_a_wrong_answer_is_no_speed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = decode.by_us

    def without_edits(*given: Any) -> Iterator[pa.RecordBatch]:
        for batch in right(*given):
            empty = pa.nulls(batch.num_rows, batch.schema.field("edit").type)
            yield batch.set_column(batch.schema.get_field_index("edit"), "edit", empty)

    monkeypatch.setattr(decode, "by_us", without_edits)
    assert decode.main(SMALL) == 1
    assert told(capsys)["equal"] is False
