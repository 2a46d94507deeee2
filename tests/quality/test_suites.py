"""The suite in Great Expectations' own hands: good files pass, and each rule sees the one fault that it is for."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core import ids, ring, weeks
from core.errors import FirnError
from core.overlay import Reaction, Row, merge_all, row_of
from core.rows import to_batch
from core.settings import MIB
from ops import sample
from quality.facts import Facts, of_file
from quality.suites import Judge, Rule, messages_rules

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = weeks.of_instant(MONDAY)
CONVERSATION = ids.conversation_uuid("test", "1")
SHARD = ring.cut(ring.part_of(ring.token(CONVERSATION), 4), 4)
NOTHING: Any = None  # where the declaration allows no null
DAY = timedelta(days=1)

Rows = list[Row]


def an_id(number: int) -> bytes:
    """Of hour `number` of the week."""
    return ids.imported_id(MONDAY + timedelta(hours=number), "test", "1", str(number))


def message(number: int) -> Row:
    row = Row(CONVERSATION, an_id(number), 7, 1, b"ciphertext", server_ts=MONDAY + timedelta(hours=number))
    return replace(row, media_ref="media", reply_to=an_id(0))


REACTIONS = (Reaction(3, an_id(30), b"heart"), Reaction(8, an_id(31), None))
GOOD: Rows = [
    message(1),
    replace(message(2), message_type=0, body=None, media_ref=None, reply_to=None, reactions=REACTIONS),
    replace(message(3), edit_id=an_id(20)),
    replace(message(4), body=None, media_ref=None, deleted=True),
    Row(CONVERSATION, an_id(5), sender_id=7, edit_id=an_id(21), body=b"edit of what never came"),
    Row(CONVERSATION, an_id(6), deleted=True),
    Row(CONVERSATION, an_id(7), reactions=REACTIONS),
    replace(message(8), body=bytes(MIB), media_ref="m" * 256, reactions=(Reaction(1, an_id(9), bytes(1024)),)),
    replace(message(9), server_ts=MONDAY + timedelta(hours=9) + DAY),
]


def with_row(place: int, **cells: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [*rows[:place], replace(rows[place], **cells), *rows[place + 1 :]]


def with_reactions(*reactions: Reaction) -> Callable[[Rows], Rows]:
    return with_row(1, reactions=reactions)


def not_ours(message_id: bytes) -> bytes:
    return message_id[:-1] + b"\xff"


NEXT_WEEK = ids.imported_id(MONDAY + 7 * DAY, "test", "1", "0")
ELSEWHERE = max(
    (ids.conversation_uuid("test", str(number)) for number in range(100)),
    key=lambda found: (ring.token(found) not in SHARD, found),
)

# Each fault with the one rule that it breaks.
FAULTS: list[tuple[str, Callable[[Rows], Rows]]] = [
    ("conversation_id is never null", with_row(0, conversation_id=NOTHING)),
    ("conversation_id is 16 bytes", with_row(0, conversation_id=CONVERSATION[:15])),
    ("message_id is never null", with_row(3, message_id=NOTHING)),
    ("message_id is an id of ours", with_row(8, message_id=not_ours(an_id(9)))),
    ("message_id is an id of ours", with_row(8, message_id=an_id(9) + b"\x00")),
    ("message_type is at least 0", with_row(0, message_type=-1)),
    ("body is at most 1,048,576 long", with_row(0, body=bytes(MIB + 1))),
    ("media_ref is at most 256 long", with_row(0, media_ref="é" * 257)),
    ("reply_to is an id of ours", with_row(0, reply_to=not_ours(an_id(0)))),
    ("edit_id is an id of ours", with_row(2, edit_id=b"")),
    ("deleted is never null", with_row(0, deleted=NOTHING)),
    ("reactions.user_id is never null", with_reactions(Reaction(NOTHING, an_id(30), b"heart"))),
    ("reactions.event_id is never null", with_reactions(Reaction(3, NOTHING, b"heart"))),
    ("reactions.event_id is an id of ours", with_reactions(Reaction(3, not_ours(an_id(30)), b"heart"))),
    ("reactions.reaction is at most 1,024 long", with_reactions(Reaction(3, an_id(30), bytes(1025)))),
    ("rows are as many as the ledger says", lambda rows: rows[1:]),
    ("rows are of the file's week", with_row(8, message_id=NEXT_WEEK, server_ts=MONDAY + 7 * DAY)),
    ("rows are of the file's shard", lambda rows: [*rows[:8], replace(rows[8], conversation_id=ELSEWHERE)]),
    ("rows are in key order", lambda rows: [*rows[1:], rows[0]]),
    ("a key stands once", lambda rows: [*rows[:8], rows[7]]),
    ("a deleted row holds nothing", with_row(3, body=b"")),
    ("a deleted row holds nothing", with_row(3, media_ref="")),
    ("a deleted row holds nothing", with_row(3, edit_id=an_id(20))),
    ("a deleted row holds nothing", with_row(5, reactions=REACTIONS)),
    ("a message has its sender and time", with_row(0, sender_id=None)),
    ("a message has its sender and time", with_row(0, server_ts=None)),
    ("an edit has its author", with_row(4, sender_id=None)),
    ("an amendment alone has no cell of a message", with_row(0, message_type=None)),
    ("an amendment alone has no cell of a message", with_row(4, media_ref="media")),
    ("an amendment alone has no cell of a message", with_row(5, reply_to=an_id(0))),
    ("an amendment alone has no cell of a message", with_row(6, server_ts=MONDAY + timedelta(hours=7))),
    ("an amendment alone has no cell of a message", with_row(6, body=b"ciphertext")),
    ("server_ts is within a day of the id", with_row(0, server_ts=MONDAY + 2 * DAY)),
    ("server_ts is within a day of the id", with_row(0, server_ts=MONDAY - 2 * DAY)),
    ("reactions ascend by user, one each", with_reactions(*reversed(REACTIONS))),
    ("reactions ascend by user, one each", with_reactions(REACTIONS[0], REACTIONS[0])),
]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(messages_rules())


def file_of(rows: Sequence[Row], week: int = WEEK, tokens: ring.Range = SHARD, told: int = len(GOOD)) -> Facts:
    return of_file([to_batch(list(rows[:2])), to_batch(list(rows[2:]))], week, tokens, told)


def test_good_files_pass(judge: Judge) -> None:
    assert ring.token(ELSEWHERE) not in SHARD
    assert ELSEWHERE > CONVERSATION
    assert judge.broken([file_of(GOOD)]) == ()
    assert judge.broken([file_of(GOOD), file_of([], told=0)]) == ()
    assert judge.broken([]) == ()


@pytest.mark.parametrize(("rule", "fault"), FAULTS)
def test_a_fault_breaks_its_rule_and_no_other(judge: Judge, rule: str, fault: Callable[[Rows], Rows]) -> None:
    bad = file_of(fault(GOOD))
    assert judge.broken([bad]) == (rule,)
    assert judge.broken([file_of(GOOD), bad, file_of(GOOD)]) == (rule,), "one bad file of three is enough"


def test_every_rule_has_a_fault_that_breaks_it(judge: Judge) -> None:
    assert {name for name, _ in FAULTS} == {rule.name for rule in judge.rules}


def test_all_broken_rules_are_named_in_their_order(judge: Judge) -> None:
    bad = GOOD
    for fault in (with_row(0, body=bytes(MIB + 1)), with_row(3, media_ref=""), lambda rows: [*rows[:8], rows[7]]):
        bad = fault(bad)
    assert judge.broken([file_of(bad, told=8)]) == (
        "body is at most 1,048,576 long",
        "rows are as many as the ledger says",
        "a key stands once",
        "a deleted row holds nothing",
    )


def test_real_traffic_passes(judge: Judge) -> None:
    """All that the sample does to eight weeks, with amendments of messages from before them."""
    events = [event for _, event in sample.traffic(MONDAY, MONDAY + 56 * DAY, ("us",))]
    merged = sorted(merge_all(map(row_of, events)).values(), key=lambda row: row.key)
    by_week: dict[int, Rows] = {}
    for row in merged:
        by_week.setdefault(weeks.of_id(row.message_id), []).append(row)
    assert len(by_week) > 8
    assert any(not row.is_message for row in merged)
    assert any(row.deleted for row in merged)
    assert judge.broken([file_of(rows, week, ring.WHOLE, len(rows)) for week, rows in by_week.items()]) == ()


def test_a_rule_that_cannot_be_judged_is_no_verdict() -> None:
    judge = Judge((Rule("a rule", "a fact that nobody states", highest=0),))
    with pytest.raises(FirnError, match="'a rule' could not be judged"):
        judge.broken([file_of(GOOD)])


# What leaves the process

CANARY = b"CANARYBYTES\xc3\xa9\xff\x01"  # 15 bytes: an id of no use
NUMBER = 7_313_131_313_131_313
INSTANT = datetime(1999, 12, 31, 23, 59, 58, 765_000, tzinfo=UTC)
BAD = Row(
    CANARY + b"c", CANARY + b"m", NUMBER, -101, CANARY, CANARY[:-2].decode(), CANARY, CANARY, True, INSTANT,
    (Reaction(NUMBER, CANARY, CANARY), Reaction(-NUMBER, CANARY, CANARY)),
)  # fmt: skip
TRACES = [
    "CANARY", CANARY.hex()[:20], base64.b64encode(CANARY).decode()[:12],
    str(NUMBER), "-101", "1999", "23:59", str(int(INSTANT.timestamp())),
]  # fmt: skip
# Tells of every file opened to be written, every folder made, every address asked for, every program started.
WATCHED = """
import sys
told = []
def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or event in ("os.mkdir", "socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen"):
        told.append((event, str(arguments)))
sys.addaudithook(watch)
from core import ring
from core.rows import to_batch
from quality.facts import of_file
from quality.suites import Judge, messages_rules
from tests.quality.test_suites import BAD, WEEK
judge = Judge(messages_rules())
assert "great_expectations" not in sys.modules
bad = of_file([to_batch([BAD, BAD])], WEEK, ring.cut(0, 4), 7)
print(judge.broken([bad]))
print(judge.validated([bad]).to_json_dict(), judge.validated([bad]))
assert told == [], told
print("nothing was written")
"""


def test_nothing_of_a_row_is_told_and_nothing_leaves_the_process(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-X", "dev", "-c", WATCHED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    broken, everything, end = done.stdout.splitlines()[0], done.stdout, done.stdout.splitlines()[-1]
    assert end == "nothing was written"
    for rule in ("message_id is an id of ours", "a deleted row holds nothing", "message_type is at least 0"):
        assert rule in broken
    assert [trace for trace in TRACES if trace in everything + done.stderr] == []
    assert list(tmp_path.iterdir()) == []
