"""The loops over the bytes of a page, compiled: where each cell lies, then column by column what it holds.

`walk` checks that every cell lies inside the page; the others trust the places that it found. A kernel that meets what
cannot be says so by its answer and raises nothing: a number below zero, or the row. All are in this one file, because a
cached kernel is known to be stale by the date of its own file alone.
"""

from typing import Any

import numpy as np

from core.compiled import kernel, memcpy

Array = Any  # numpy arrays, whose types numba takes from the call

FITS, CUT, UNKNOWN, LEFT_OVER = 0, -1, -2, -3
NULL = -1
_NULL, _NEGATIVE = 2**32 - 1, 2**31  # as unsigned, which is one step less for each cell
NUMBERS, BITS, NESTED, BYTES, ORDERED = range(5)  # how a kind's cells are written; the last two have offsets
ALIGNMENT = 64


@kernel
def _byte(page: Array, at: int, ahead: int) -> Any:
    """As a word, from a place that cannot be taken for one counted from the end: so eight of them become one load."""
    return np.uint64(page[np.uint64(at) + np.uint64(ahead)])


@kernel
def _uint32(page: Array, at: int) -> Any:
    high = _byte(page, at, 0) << np.uint64(24) | _byte(page, at, 1) << np.uint64(16)
    return high | _byte(page, at, 2) << np.uint64(8) | _byte(page, at, 3)


@kernel
def _int32(page: Array, at: int) -> Any:
    return np.int32(_uint32(page, at))


@kernel
def _word(page: Array, at: int) -> Any:
    word = np.uint64(0)
    for byte in range(8):
        word |= _byte(page, at, byte) << np.uint64(56 - 8 * byte)
    return word


@kernel
def walk(page: Array, at: Any, starts: Array, lengths: Array) -> tuple[int, int]:
    """Fills (columns, rows) of places and lengths; FITS only if the last cell ends where the page does. The second
    number is the row that it came to."""
    columns, rows = lengths.shape
    end = len(page)
    for row in range(rows):
        for column in range(columns):
            if end - at < 4:
                return CUT, row
            size = np.int64(_uint32(page, at))
            at += 4
            starts[column, row] = at
            lengths[column, row] = size
            if size <= end - at:
                at += size
            elif size != _NULL:
                return (CUT if size < _NEGATIVE else UNKNOWN), row
    return (FITS if at == end else LEFT_OVER), rows


@kernel
def weigh(lengths: Array, plan: Array, regions: Array) -> tuple[int, int, int]:
    """What each column will take, and where in one arena: its nulls, then where its validity, offsets and values begin
    (0 for what it has none of) and the bytes of its values. Returns the arena's size; or -1 and the column and row of a
    cell that is not as wide as its kind is."""
    size = ALIGNMENT  # so that 0 is no place
    columns, rows = lengths.shape
    for column in range(columns):
        family, width, least = plan[column, 0], plan[column, 1], plan[column, 2]
        nulls, total, odd = 0, 0, 0
        for row in range(rows):
            length = lengths[column, row]
            nulls += length < least
            total += max(length, 0)
            odd += (length > 0) & (length != width)
        if width and odd:
            for row in range(rows):
                if lengths[column, row] > 0 and lengths[column, row] != width:
                    return -1, column, row
        if family == NUMBERS:
            total = rows * width
        elif family == BITS:
            total = (rows + 7) // 8
        elif family == NESTED:
            total = 0
        wanted = ((rows + 7) // 8 if nulls else 0), ((rows + 1) * 4 if family >= BYTES else 0), total
        regions[column, 0], regions[column, 4] = nulls, total
        for part in range(3):
            regions[column, 1 + part] = size if wanted[part] else 0
            size += (wanted[part] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    return size, -1, -1


@kernel
def fill(page: Array, starts: Array, lengths: Array, plan: Array, regions: Array, arena: Array) -> tuple[int, int]:
    """Writes what `weigh` made room for; `arena` is as large as it said. Returns the column and row of a number that is
    too large for its unit; else -1."""
    for column in range(len(plan)):
        family, width, least, scale = plan[column, 0], plan[column, 1], plan[column, 2], plan[column, 3]
        valid, offsets, values = regions[column, 1], regions[column, 2], regions[column, 3]
        if valid:
            _flag(lengths[column], least, arena[valid:])
        if family == NUMBERS:
            row = _numbers(page, starts[column], lengths[column], width, scale, arena[values:])
            if row >= 0:
                return column, row
        elif family == BITS:
            _bits(page, starts[column], lengths[column], arena[values:])
        elif family == BYTES:
            _bytes(page, starts[column], lengths[column], arena[offsets:], arena[values:])
        elif family == ORDERED:
            _order(page, starts[column], lengths[column], arena[offsets:], arena[values:])
    return -1, -1


@kernel
def _flag(lengths: Array, least: int, valid: Array) -> None:
    valid[: (len(lengths) + 7) // 8] = 0
    for row in range(len(lengths)):
        valid[row >> 3] |= np.uint8((lengths[row] >= least) << (row & 7))


@kernel
def _bits(page: Array, starts: Array, lengths: Array, out: Array) -> None:
    out[: (len(lengths) + 7) // 8] = 0
    for row in range(len(lengths)):
        if lengths[row] > 0 and page[starts[row]]:
            out[row >> 3] |= np.uint8(1 << (row & 7))


@kernel
def _numbers(page: Array, starts: Array, lengths: Array, width: int, scale: int, out: Array) -> int:
    """Big-endian to ours; null is 0."""
    rows = len(starts)
    if width == 8:
        eight = out[: rows * 8].view(np.int64)
        most = np.iinfo(np.int64).max // scale
        for row in range(rows):
            value = np.int64(_word(page, starts[row])) if lengths[row] > 0 else np.int64(0)
            if scale > 1 and not -most <= value <= most:
                return row
            eight[row] = value * scale
    elif width == 4:
        four = out[: rows * 4].view(np.int32)
        for row in range(rows):
            four[row] = _int32(page, starts[row]) if lengths[row] > 0 else np.int32(0)
    else:
        for row in range(rows):
            for byte in range(width):
                out[row * width + byte] = page[starts[row] + width - 1 - byte] if lengths[row] > 0 else np.uint8(0)
    return -1


@kernel
def _bytes(page: Array, starts: Array, lengths: Array, offsets: Array, out: Array) -> None:
    ends = offsets[: (len(lengths) + 1) * 4].view(np.int32)
    source, target = page.ctypes.data, out.ctypes.data
    end = ends[0] = 0
    for row in range(len(lengths)):
        length = lengths[row]
        if length > 0:
            memcpy(np.uintp(target + end), np.uintp(source + starts[row]), np.uintp(length))
            end += length
        ends[row + 1] = end


@kernel
def _order(page: Array, starts: Array, lengths: Array, offsets: Array, out: Array) -> None:
    """TIMEUUIDs as ids in time order, two words each: `core.ids.from_timeuuid`."""
    ends = offsets[: (len(lengths) + 1) * 4].view(np.int32)
    words = out[: len(out) // 8 * 8].view(np.uint64)
    end = ends[0] = 0
    for row in range(len(lengths)):
        if lengths[row] > 0:
            head = _word(page, starts[row])
            low, middle = head >> np.uint64(32), head >> np.uint64(16) & np.uint64(0xFFFF)
            ticks = (head & np.uint64(0xFFF)) << np.uint64(48) | middle << np.uint64(32) | low
            ordered = ticks >> np.uint64(12) << np.uint64(16) | np.uint64(0x6000) | ticks & np.uint64(0xFFF)
            words[end] = _swapped(ordered)
            words[end + 1] = _swapped(_word(page, starts[row] + 8))
            end += 2
        ends[row + 1] = end * 8


@kernel
def _swapped(word: Any) -> Any:
    """The other byte order; the compiler knows this form and makes one instruction of it."""
    turned = np.uint64(0)
    for byte in range(8):
        turned |= (word >> np.uint64(8 * byte) & np.uint64(0xFF)) << np.uint64(56 - 8 * byte)
    return turned


@kernel
def _inner(page: Array, at: int, end: int) -> Any:
    """The length of a cell inside of another that ends there; UNKNOWN for one that does not fit, or is below null."""
    length = _int32(page, at) if end - at >= 4 else np.int32(UNKNOWN)
    return length if NULL <= length <= end - at - 4 else np.int32(UNKNOWN)


@kernel
def split(page: Array, starts: Array, lengths: Array, inner_starts: Array, inner_lengths: Array) -> int:
    """Tuples into (fields, rows): trailing fields may be left out, and are null then. The row of the first that is not
    a tuple of so many fields; else -1."""
    fields, rows = inner_lengths.shape
    for row in range(rows):
        at = starts[row]
        end = at + max(lengths[row], 0)
        for field in range(fields):
            inner_starts[field, row] = at
            inner_lengths[field, row] = NULL
            if at == end:
                continue
            length = _inner(page, at, end)
            if length < NULL:
                return row
            inner_starts[field, row] = at + 4
            inner_lengths[field, row] = length
            at += 4 + max(length, 0)
        if at != end:
            return row
    return -1


@kernel
def count(page: Array, starts: Array, lengths: Array, each: int, offsets: Array) -> int:
    """Where the elements of each collection begin among all of them; `each` is 2 for maps. The row of the first that
    cannot hold what it says; else -1."""
    end = 0
    offsets[0] = 0
    for row in range(len(lengths)):
        length = lengths[row]
        if length > 0:
            elements = _int32(page, starts[row]) if length >= 4 else -1
            if elements < 0 or elements > (length - 4) // (4 * each):
                return row
            end += elements
        offsets[row + 1] = end
    return -1


@kernel
def spread(
    page: Array, starts: Array, lengths: Array, offsets: Array, inner_starts: Array, inner_lengths: Array
) -> int:
    """The elements of collections, one after the other, as (1 or keys and values, elements). The row of the first whose
    elements do not fill it; else -1."""
    each = len(inner_lengths)
    for row in range(len(lengths)):
        if lengths[row] <= 0:
            continue
        at, end = starts[row] + 4, starts[row] + lengths[row]
        for element in range(offsets[row], offsets[row + 1]):
            for part in range(each):
                length = _inner(page, at, end)
                if length < NULL:
                    return row
                inner_starts[part, element] = at + 4
                inner_lengths[part, element] = length
                at += 4 + max(length, 0)
        if at != end:
            return row
    return -1


@kernel
def lz4_size(block: Array) -> int:
    """The bytes that an LZ4 block will become, by the lengths in it alone; -1 if it is cut within one."""
    size: Any = 0
    at: Any = 0
    end = len(block)
    while at < end:
        token = np.int64(block[at])
        at += 1
        for part in range(2):
            length = token >> 4 if part == 0 else token & 15
            if length == 15:
                while at < end and block[at] == 255:
                    length += 255
                    at += 1
                if at >= end:
                    return -1
                length += block[at]
                at += 1
            size += length
            if part:
                size += 4  # the shortest that is worth a reference
                continue
            at += length
            if at >= end:  # the last part is literal
                return size if at == end else -1
            at += 2
            if at > end:
                return -1
    return -1 if end else 0
