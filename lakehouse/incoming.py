"""The files of an import, chunk by chunk in constant memory: good rows in our columns, bad ones with their reason.

A chunk says where the next one begins, so that reading can go on there. Parquet is counted in rows, NDJSON in bytes.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from core import imports, mapped, ndjson
from core.errors import DamagedError, RefusedError
from core.imports import SAMPLE_ROWS, ColumnMap

CHUNK_ROWS = 32_768
CHUNK_BYTES = 32 * 1024 * 1024
ROW_BYTES_MAX = 16 * 1024 * 1024  # a line that is longer is no row; of a row that is longer this much is kept
_BUFFER_BYTES = 1024 * 1024
_PARQUET = b"PAR1"
_BOM = b"\xef\xbb\xbf"
CUT_OFF = "the file ends in the middle of this row"
TOO_LONG = f"it is longer than {ROW_BYTES_MAX:,} bytes"


class Form(StrEnum):
    PARQUET = "parquet"
    NDJSON = "ndjson"


@dataclass(frozen=True)
class HistoryFile:
    """`label` is what people see of it; `rows` is known of Parquet before it is read; `names` are its columns, of
    NDJSON those of the first rows."""

    path: Path
    label: str
    form: Form
    digest: str
    size_bytes: int
    modified_ns: int
    rows: int | None
    names: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a chunk begins: `at` in rows or bytes, `line` the number of the last line before it."""

    at: int = 0
    line: int = 0


@dataclass(frozen=True)
class Bad:
    """`row` as JSON, as it was read."""

    line: int
    reason: str
    row: bytes


@dataclass(frozen=True)
class Chunk:
    """`good` has the columns of `core.mapped`; `rows` counts good and bad."""

    good: pa.RecordBatch
    bad: list[Bad]
    rows: int
    next: Place


def inspect(paths: Sequence[Path], columns: ColumnMap) -> tuple[list[HistoryFile], list[Path]]:
    """The files in an order of their own, and those that have the bytes of another. RefusedError lists every fault of
    every file."""
    found: dict[str, HistoryFile] = {}
    faults: list[str] = []
    same = []
    labels = [path.name for path in paths]
    for path in paths:
        label = path.name if labels.count(path.name) == 1 else str(path)
        try:
            file, wrong = _inspected(path, label, columns)
        except RefusedError as fault:
            faults.append(f"{label}: {fault.what}")
            continue
        faults += [f"{label}: {sentence}" for sentence in wrong]
        if file.digest in found:
            same.append(path)
        found.setdefault(file.digest, file)
    if faults:
        raise RefusedError(
            "; ".join(faults), "correct the file, or name its columns: --map ours=theirs; ./firn import --help"
        )
    return [found[digest] for digest in sorted(found)], same


def require_unchanged(file: HistoryFile) -> None:
    now = file.path.stat()
    if (now.st_size, now.st_mtime_ns) != (file.size_bytes, file.modified_ns):
        raise RefusedError(f"{file.label} changed while it was read", "run the same again when nobody writes to it")


def read(file: HistoryFile, columns: ColumnMap, now: datetime, place: Place) -> Iterator[Chunk]:
    """DamagedError when a Parquet file does not decode: then no row of it was placed."""
    return (_read_parquet if file.form is Form.PARQUET else _read_ndjson)(file, columns, now, place)


def _inspected(path: Path, label: str, columns: ColumnMap) -> tuple[HistoryFile, list[str]]:
    try:
        status = path.stat()
        with path.open("rb") as file:
            head = file.read(len(_PARQUET))
        hashed = blake3(max_threads=blake3.AUTO)
        digest = (hashed.update_mmap(path) if status.st_size else hashed).hexdigest()
    except OSError as fault:
        raise RefusedError(f"it cannot be read ({fault.strerror})", "see that the path is right") from fault
    form = Form.PARQUET if head == _PARQUET else Form.NDJSON
    rows, names, wrong = (_parquet_columns if form is Form.PARQUET else _ndjson_columns)(path, columns)
    return HistoryFile(path, label, form, digest, status.st_size, status.st_mtime_ns, rows, names), wrong


def _parquet_columns(path: Path, columns: ColumnMap) -> tuple[int | None, tuple[str, ...], list[str]]:
    with _opened(path) as parquet:
        schema = parquet.schema_arrow
        wrong = imports.wrong_columns(schema, columns)
        if wrong:
            wrong.append("found " + ", ".join(f"{field.name} {field.type}" for field in schema))
        return parquet.metadata.num_rows, tuple(schema.names), wrong


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as fault:
        raise RefusedError(
            "it begins as Parquet and has no readable end: it is cut off or damaged", "get the file anew"
        ) from fault


def _ndjson_columns(path: Path, columns: ColumnMap) -> tuple[int | None, tuple[str, ...], list[str]]:
    records, lines = [], 0
    with path.open("rb") as file:
        for line in _lines(file, Place()):
            if line.is_blank:
                continue
            lines += 1
            with suppress(ndjson.BadLineError):
                records.append(line.record())
            if lines == SAMPLE_ROWS:
                break
    if lines and not records:
        raise RefusedError("it is neither Parquet nor NDJSON", "give one JSON object a line, or a Parquet file")
    names = tuple(dict.fromkeys(name for record in records for name in record))
    wrong = ndjson.wrong_fields(records, columns) if records else []
    return None, names, [*wrong, f"found {', '.join(names)}"] if wrong else []


def _read_parquet(file: HistoryFile, columns: ColumnMap, now: datetime, place: Place) -> Iterator[Chunk]:
    used = imports.used(file.names, columns)
    wanted = list(dict.fromkeys(name for names in used.values() for name in names))
    at = 0
    with _opened(file.path) as parquet:
        for group in range(parquet.num_row_groups):
            meta = parquet.metadata.row_group(group)
            if at + meta.num_rows <= place.at:
                at += meta.num_rows
                continue
            for batch in _batches(file, parquet, group, wanted):
                at += batch.num_rows
                new = batch.slice(max(0, batch.num_rows - (at - place.at))) if at > place.at else None
                if new:
                    yield _checked(new, used, now, at - new.num_rows, Place(at, at))


def _batches(file: HistoryFile, parquet: pq.ParquetFile, group: int, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    meta = parquet.metadata.row_group(group)
    rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES * meta.num_rows // max(1, meta.total_byte_size)))
    try:
        yield from parquet.iter_batches(rows, row_groups=[group], columns=wanted, use_threads=False)
    except (OSError, pa.ArrowException) as fault:
        raise DamagedError(
            f"{file.label} does not decode beyond row group {group}", "get the file anew; no row of it was placed"
        ) from fault


def _checked(
    batch: pa.RecordBatch, used: Mapping[str, Sequence[str]], now: datetime, before: int, following: Place
) -> Chunk:
    rows, checks = mapped.from_arrow(batch, used, before + 1)
    reasons = mapped.reasons(rows.num_rows, [*checks, *mapped.plausible(rows, now)])
    bad = [
        Bad(before + 1 + number, reason, _kept(_as_json(batch.slice(number, 1))))
        for number, reason in enumerate(reasons)
        if reason
    ]
    return Chunk(rows.filter(pa.array([not reason for reason in reasons])), bad, rows.num_rows, following)


def _as_json(row: pa.RecordBatch) -> bytes:
    values = {name: _value(row.column(name)) for name in row.schema.names}
    return json.dumps(values, ensure_ascii=False, default=_spelled).encode(errors="replace")


def _value(column: "pa.Array[Any]") -> Any:
    try:
        return column[0].as_py()
    except (ValueError, OverflowError):  # text that is not UTF-8, or a time that no datetime can be: as Arrow has it
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, pa.schema({"value": column.type})) as stream:
            stream.write_batch(pa.record_batch({"value": column}))
        return {"arrow": b64encode(sink.getvalue()).decode()}


def _spelled(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _kept(row: bytes) -> bytes:
    return row[:ROW_BYTES_MAX]


@dataclass(frozen=True)
class _Line:
    """`data` without its end; `after` is the offset of the next line."""

    data: bytes
    after: int
    is_whole: bool
    is_ended: bool

    @property
    def is_blank(self) -> bool:
        return self.is_whole and not self.data

    def record(self) -> ndjson.Record:
        if not self.is_whole:
            raise ndjson.BadLineError(TOO_LONG)
        try:
            return ndjson.record_of(self.data)
        except ndjson.BadLineError:
            if self.is_ended:
                raise
            raise ndjson.BadLineError(CUT_OFF) from None


def _lines(file: IO[bytes], place: Place) -> Iterator[_Line]:
    file.seek(place.at)
    at = place.at
    while data := file.readline(ROW_BYTES_MAX + 1):
        is_whole, ended = len(data) <= ROW_BYTES_MAX or data.endswith(b"\n"), data.endswith(b"\n")
        start, at = at, at + len(data)
        while not ended and (rest := file.readline(_BUFFER_BYTES)):
            at, ended = at + len(rest), rest.endswith(b"\n")
        yield _Line((data.removeprefix(_BOM) if not start else data).strip(), at, is_whole, ended)


def _read_ndjson(file: HistoryFile, columns: ColumnMap, now: datetime, place: Place) -> Iterator[Chunk]:
    number = place.line
    pending: list[tuple[int, _Line]] = []
    size_bytes = 0
    with file.path.open("rb") as opened:
        for line in _lines(opened, place):
            number += 1
            if not line.is_blank:
                pending.append((number, line))
                size_bytes += len(line.data)
            if len(pending) >= CHUNK_ROWS or size_bytes >= CHUNK_BYTES:
                yield _parsed(pending, columns, now, Place(line.after, number))
                pending, size_bytes = [], 0
    if pending:
        yield _parsed(pending, columns, now, Place(file.size_bytes, number))


def _parsed(lines: Sequence[tuple[int, _Line]], columns: ColumnMap, now: datetime, following: Place) -> Chunk:
    rows, kept, bad = [], [], []
    for number, line in lines:
        try:
            rows.append(ndjson.mapped_of(line.record(), columns.theirs) | {"line": number})
            kept.append(line)
        except ndjson.BadLineError as fault:
            bad.append(Bad(number, str(fault), _kept(line.data)))
    batch = ndjson.as_batch(rows)
    reasons = mapped.reasons(len(rows), mapped.plausible(batch, now))
    for row, line, reason in zip(rows, kept, reasons, strict=True):
        if reason:
            bad.append(Bad(row["line"], reason, _kept(line.data)))
    return Chunk(
        batch.filter(pa.array([not reason for reason in reasons], pa.bool_())),
        sorted(bad, key=lambda one: one.line),
        len(lines),
        following,
    )
