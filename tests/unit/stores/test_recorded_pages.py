"""What a node sent is what the driver makes of it, and stays so."""

import json
from pathlib import Path

import pytest

from bench.decode import WAYS
from bench.pages import Driver, arrow, columns_of
from schemas.tables import WEEK_TABLES, Table
from stores import envelopes, frames

GOLDEN = Path(__file__).parents[2] / "golden" / "pages.json"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", WEEK_TABLES, ids=lambda table: table.name)
def test_a_recorded_page(table: Table, way: str) -> None:
    """From Cassandra 5.0, as it came over the socket: eight rows, their columns named, and more to come."""
    version, lz4 = WAYS[way]
    sent = bytes.fromhex(json.loads(GOLDEN.read_text())[f"{table.name}2913"][way])
    (answer,) = envelopes.frames(envelopes.segments(sent, lz4) if version == 5 else sent)
    page = frames.opened(envelopes.result(answer))
    batch = frames.decoded(page)
    columns = columns_of(table)
    assert batch.equals(arrow(columns, Driver(version, lz4).rows(sent, columns)))
    assert batch.schema.names == list(table.names)
    assert (batch.num_rows, answer.version) == (8, version)
    assert page.paging_state
