"""Every column is declared once, with tags; the migrations agree with that, and both databases accept them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from core.overlay import Row
from schemas.tables import CANONICAL, HOT_TABLES, META_TABLES, VAULT_TABLES, WEEK_TABLES, Column, Table

ROOT = Path(__file__).resolve().parents[3]
TAGS = {"subject", "personal", "ciphertext", "region", "plain"}
DECLARED = {"hot": HOT_TABLES, "meta": META_TABLES, "vault": VAULT_TABLES}
ALL_TABLES = (*WEEK_TABLES, *META_TABLES, *HOT_TABLES, *VAULT_TABLES)


@dataclass(frozen=True)
class Ddl:
    """One CREATE TABLE, read back into its parts."""

    space: str
    name: str
    columns: dict[str, str]
    key: str
    options: str


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def split(text: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "(<{") - (character in ")>}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [squeezed(part) for part in parts]


def tables_in(text: str) -> Iterator[Ddl]:
    text = squeezed("\n".join(line.split("--")[0] for line in text.splitlines()))
    for space, name, rest in re.findall(r"CREATE TABLE IF NOT EXISTS \{region\}_(\w+)\.(\w+) \(([^;\"]*)", text):
        depth, end = 1, 0
        while depth:
            depth += (rest[end] == "(") - (rest[end] == ")")
            end += 1
        body, options = rest[: end - 1], rest[end:].strip().removeprefix("WITH ")
        columns, key = {}, ""
        for part in split(body):
            if found := re.fullmatch(r"PRIMARY KEY \((.*)\)", part):
                key = found[1]
            else:
                column, _, kind = part.partition(" ")
                key = column if kind.endswith(" PRIMARY KEY") else key
                columns[column] = kind.removesuffix(" PRIMARY KEY")
        yield Ddl(space, name, columns, key, options)


def columns_added(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """By the table that a later migration widens."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for space, name, column, kind in re.findall(r"ALTER TABLE \{region\}_(\w+)\.(\w+) ADD (\w+) (\w+)", text):
        found.setdefault((space, name), {})[column] = kind
    return found


def declared(space: str, table: Table) -> Ddl:
    return Ddl(space, table.name, {column.name: column.cql for column in table.columns}, table.key, table.options)


def migrated() -> list[Ddl]:
    texts = [path.read_text() for path in sorted((ROOT / "schemas" / "cql").glob("*.cql"))]
    texts.append((ROOT / "stores" / "cassandra.py").read_text())
    added = columns_added("\n".join(texts))
    made = [ddl for text in texts for ddl in tables_in(text)]
    return [replace(ddl, columns=ddl.columns | added.get((ddl.space, ddl.name), {})) for ddl in made]


def untagged(tables: Iterable[Table]) -> list[str]:
    return [
        f"{table.name}.{column.name}"
        for table in tables
        for column in table.columns
        if not column.tags or not set(column.tags) <= TAGS or ("plain" in column.tags and len(column.tags) > 1)
    ]


def untagged_fields(schema: pa.Schema) -> list[str]:
    found = {field.name: (field.metadata or {}).get(b"tags", b"").decode() for field in schema}
    return [name for name, tags in found.items() if not tags or not set(tags.split(",")) <= TAGS]


def test_declaration_and_migrations_agree_column_for_column() -> None:
    wanted = {(space, table.name): declared(space, table) for space, tables in DECLARED.items() for table in tables}
    found = {(ddl.space, ddl.name): ddl for ddl in migrated()}
    assert found == wanted
    assert len(found) == len(migrated()), "a table is made twice"
    assert [list(found[key].columns) for key in wanted] == [list(ddl.columns) for ddl in wanted.values()]


def test_a_column_that_is_not_declared_is_seen() -> None:
    (ddl,) = tables_in(
        "CREATE TABLE IF NOT EXISTS {region}_hot.heads (\n  conversation_id uuid, -- whose\n"
        "head frozen<tuple<timeuuid, bigint, blob>>, extra text,\n PRIMARY KEY (conversation_id)) WITH x = {'a': 1};"
    )
    table = replace(HOT_TABLES[-1], options="x = {'a': 1}")
    assert ddl != declared("hot", table)
    assert ddl == declared("hot", replace(table, columns=(*table.columns, Column("extra", "text", ("plain",)))))


def test_every_column_has_tags() -> None:
    assert untagged(ALL_TABLES) == []
    assert untagged_fields(CANONICAL) == []


@pytest.mark.parametrize("tags", [(), ("private",), ("plain", "personal")])
def test_a_column_without_good_tags_is_seen(tags: tuple[str, ...]) -> None:
    assert untagged([Table("t", "a", (Column("a", "int", tags),))]) == ["t.a"]
    metadata = {"tags": "private"} if tags else None
    assert untagged_fields(pa.schema([pa.field("a", pa.int8(), metadata=metadata)])) == ["a"]


def test_what_names_a_person_says_so() -> None:
    people = {"sender_id", "user_id"}
    columns = [column for table in ALL_TABLES for column in table.columns]
    assert all("subject" in column.tags for column in columns if column.name in people)
    assert all("ciphertext" in column.tags for column in columns if "blob" in column.cql)
    assert all("region" in column.tags for column in columns if column.name == "region")


def test_the_canonical_row_is_the_row_of_the_rules() -> None:
    assert tuple(CANONICAL.names) == tuple(Row.__dataclass_fields__)


def names_of(key: str) -> list[str]:
    return re.findall(r"\w+", key)


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_a_key_is_made_of_columns(table: Table) -> None:
    assert set(names_of(table.key)) <= set(table.names)
    assert len(set(table.names)) == len(table.names)


# CQL that Cassandra and ScyllaDB both accept, and that a move can copy.

FORBIDDEN = {
    "an index": r"\bCREATE (CUSTOM )?INDEX\b|\bStorageAttachedIndex\b|\bSASI\b",
    "a materialized view": r"\bMATERIALIZED VIEW\b",
    "a user-defined type or function": r"\bCREATE (OR REPLACE )?(TYPE|FUNCTION|AGGREGATE)\b",
    "a trigger": r"\bCREATE TRIGGER\b",
    "a counter": r"\bcounter\b(?=\s*[,)])",
    "a static column": r"\bSTATIC\b",
    "a TTL": r"\bUSING TTL\b|\bAND TTL\b|\bdefault_time_to_live\b",
    "an unfrozen collection": r"(?<!frozen<)\b(map|set|list)\s*<",
    "an unfrozen tuple": r"(?<!frozen<)\btuple\s*<",
    "a vector or duration": r"\bvector\s*<|\bduration\b(?=\s*[,)])",
    "reliance on snapshots": r"\bauto_snapshot\b",
    "filtering": r"\bALLOW FILTERING\b",
    "masking": r"\bMASKED\b",
    "Cassandra's new compaction": r"\bUnifiedCompactionStrategy\b",
    "several partitions in one logged batch": r"\bBEGIN (LOGGED )?BATCH\b",
}


def refused(cql: str) -> list[str]:
    return [what for what, pattern in FORBIDDEN.items() if re.search(pattern, cql, re.IGNORECASE)]


def cql_texts() -> dict[str, str]:
    """All DDL, and what the stores send: the strings in their sources that speak CQL."""
    folder = ROOT / "schemas" / "cql"
    texts = {
        path.name: "\n".join(line.split("--")[0] for line in path.read_text().splitlines())
        for path in folder.glob("*.cql")
    }
    texts |= {table.name: table.ddl("us_hot", "1") for table in WEEK_TABLES}
    for path in sorted((ROOT / "stores").glob("*.py")):
        strings = re.findall(
            r'"[^"\n]*\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|VALUES|WHERE)\b[^"\n]*"', path.read_text()
        )
        texts[path.name] = "\n".join(strings)
    return texts


@pytest.mark.parametrize("name", cql_texts())
def test_cql_is_what_both_databases_take(name: str) -> None:
    assert refused(cql_texts()[name]) == []


@pytest.mark.parametrize(
    ("cql", "what"),
    [
        ("CREATE CUSTOM INDEX i ON t (a) USING 'StorageAttachedIndex'", "an index"),
        ("create index on t (a)", "an index"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", "a materialized view"),
        ("CREATE TYPE t (a int)", "a user-defined type or function"),
        ("CREATE TRIGGER t ON x USING 'y'", "a trigger"),
        ("(a int, n counter, PRIMARY KEY (a))", "a counter"),
        ("(a int, s text STATIC, PRIMARY KEY (a))", "a static column"),
        ("INSERT INTO t (a) VALUES (1) USING TTL 5", "a TTL"),
        ("INSERT INTO t (a) VALUES (1) USING TIMESTAMP 4 AND TTL 5", "a TTL"),
        ("WITH default_time_to_live = 5", "a TTL"),
        ("(a map<int, text>)", "an unfrozen collection"),
        ("(a set<int>)", "an unfrozen collection"),
        ("(a tuple<int, text>)", "an unfrozen tuple"),
        ("(a vector<float, 3>)", "a vector or duration"),
        ("auto_snapshot", "reliance on snapshots"),
        ("SELECT a FROM t WHERE b = 1 ALLOW FILTERING", "filtering"),
        ("(a text MASKED WITH DEFAULT)", "masking"),
        ("{'class': 'UnifiedCompactionStrategy'}", "Cassandra's new compaction"),
        ("BEGIN BATCH", "several partitions in one logged batch"),
    ],
)
def test_what_one_of_them_refuses_is_seen(cql: str, what: str) -> None:
    assert refused(cql) == [what]


def test_frozen_values_are_fine() -> None:
    assert refused("(a frozen<tuple<timeuuid, blob>>, b frozen<map<int, text>>, static_note_id int)") == []


@pytest.mark.parametrize("table", WEEK_TABLES, ids=lambda table: table.name)
def test_a_week_table_is_windowed_by_day_and_dropped_whole(table: Table) -> None:
    (compaction,) = re.findall(r"compaction = \{(.*?)\}", table.ddl("us_hot", "2913"))
    options = dict(re.findall(r"'(\w+)': '?(\w+)'?", compaction))
    assert options == {
        "class": "TimeWindowCompactionStrategy",
        "compaction_window_unit": "DAYS",
        "compaction_window_size": "1",
    }
    assert names_of(table.key)[:2] == ["conversation_id", "message_id"]
    assert "CLUSTERING ORDER BY (message_id DESC" in table.options


def test_ddl_holds_every_part() -> None:
    ddl = WEEK_TABLES[0].ddl("us_hot", "2913", "id = 1")
    assert ddl.startswith("CREATE TABLE IF NOT EXISTS us_hot.messages_w2913 (conversation_id uuid, ")
    assert ddl.endswith("AND id = 1")
    assert Table("t", "a", (Column("a", "int", ("plain",)),)).ddl("k") == (
        "CREATE TABLE IF NOT EXISTS k.t (a int, PRIMARY KEY (a))"
    )
