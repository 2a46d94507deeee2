"""`firn read`, `firn dead-letters`: what is stored, never what it says (bodies are ciphertext)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from core import ids, weeks
from core.settings import Settings
from core.tiers import Tier
from core.topics import DeadLetter
from ops import report
from ops.commands.options import Json, Now, command, identifier, load, message_id, moment

if TYPE_CHECKING:
    from core.overlay import Row
    from lakehouse.reader import Page
    from lakehouse.restore import Waiting
    from lakehouse.site import Site

FIRST_BYTES = 6
PAGE_ROWS = 200
messages_app = typer.Typer(rich_markup_mode=None)


@dataclass(frozen=True)
class Found:
    """Rows with the tier each came from, newest first; the rest as in the reader's pages."""

    region: str
    rows: "list[tuple[Tier, Row]]"
    before: bytes | None
    missing: "dict[int, Waiting]"


@command(
    messages_app,
    "read",
    "read 0f0e0d0c-0b0a-8908-8706-050403020100",
    "read 0f0e0d0c-0b0a-8908-8706-050403020100 --region us --limit 100",
    "read 0f0e0d0c-0b0a-8908-8706-050403020100 --all --json",
)
def read(
    conversation: Annotated[UUID, typer.Argument(parser=identifier, help="The conversation's UUID.")],
    region: Annotated[
        str | None, typer.Option(metavar="R", help="Its region. Default: the first that knows it.")
    ] = None,
    before: Annotated[
        bytes | None, typer.Option(parser=message_id, metavar="ID", help="Only messages older than this message.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many messages.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="All messages, page by page.")] = False,
    now: Now = None,
    json_: Json = False,
) -> None:
    """Read a conversation back, whatever tiers it lies in.

    Newest message first. Bodies are ciphertext: their size and first bytes are shown.

    Weeks that are frozen and not restored are named, with what they wait for (./firn restore brings them back).
    """
    screen, (config, _) = report.screen(json_), load()
    with report.progress(screen, "reading") as progress:
        found = _find(config, conversation.bytes, region, before, None if every else limit, moment(now), progress)
    more = f"more: ./firn read {conversation} --region {found.region} --before {_id(found.before)}"
    tail = [more if found.before else "no more"]
    waiting = [f"not here: {weeks.label(week)}, {one.sentence}" for week, one in found.missing.items()]
    headings = ("sent (UTC)", "tier", ">sender", ">type", ">size", "first bytes", "flags")
    screen.show(
        {
            "region": found.region,
            "messages": [_message(tier, row) for tier, row in found.rows],
            "before": _id(found.before) if found.before else None,
            "missing_weeks": [_missing(week, one) for week, one in found.missing.items()],
        },
        report.table(headings, [_cells(tier, row) for tier, row in found.rows]),
        *waiting,
        *tail,
    )


def _find(
    config: Settings,
    conversation_id: bytes,
    named: str | None,
    before: bytes | None,
    limit: int | None,
    now: datetime,
    progress: report.Progress,
) -> Found:
    from lakehouse.site import site  # noqa: PLC0415
    from ops.regions import home_of  # noqa: PLC0415
    from stores.cassandra import connected  # noqa: PLC0415

    with connected(config) as db:
        region, _ = home_of(config, db, conversation_id, named)
        return _pages(site(config, region, db, now), conversation_id, before, limit, progress)


def _pages(
    site: "Site", conversation_id: bytes, before: bytes | None, limit: int | None, progress: report.Progress
) -> Found:
    from lakehouse.reader import read_page  # noqa: PLC0415

    found = Found(site.region, [], before, {})
    while True:
        wanted = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(found.rows))
        page = read_page(site, conversation_id, found.before, wanted)
        found = Found(site.region, found.rows + _placed(page), page.before, found.missing | page.missing)
        if page.before is None or (limit is not None and len(found.rows) >= limit):
            return found
        progress.at(len(found.rows), max(limit or 0, len(found.rows) + PAGE_ROWS))


def _missing(week: int, one: "Waiting") -> dict[str, Any]:
    times = {"ready_at": one.ready_at, "expires_at": one.expires_at}
    return {"week": weeks.label(week), "state": one.state, **times, "sentence": one.sentence}


def _placed(page: "Page") -> "list[tuple[Tier, Row]]":
    return [(page.tiers[weeks.of_id(row.message_id)], row) for row in page.rows]


def _cells(tier: Tier, row: "Row") -> tuple[str, ...]:
    sent, body = report.second(ids.instant(row.message_id)), row.body or b""
    size, first = report.size(len(body)), body[:FIRST_BYTES].hex()
    return sent, tier, str(row.sender_id), str(row.message_type), size, first, ", ".join(_flags(row))


def _flags(row: "Row") -> list[str]:
    flags = {"edited": row.edit_id, "reply": row.reply_to, "media": row.media_ref}
    reactions = [report.plural(len(row.reactions), "reaction")] if row.reactions else []
    return [name for name, value in flags.items() if value is not None] + reactions


def _message(tier: Tier, row: "Row") -> dict[str, Any]:
    body = row.body or b""
    return {
        "id": _id(row.message_id),
        "sent_at": ids.instant(row.message_id),
        "week": weeks.label(weeks.of_id(row.message_id)),
        "tier": tier,
        "sender_id": row.sender_id,
        "message_type": row.message_type,
        "body_bytes": len(body),
        "first_bytes": body[:FIRST_BYTES].hex(),
        "media_ref": row.media_ref,
        "reply_to": _id(row.reply_to) if row.reply_to else None,
        "is_edited": row.edit_id is not None,
        "reactions": len(row.reactions),
    }


def _id(message: bytes | None) -> str:
    return str(UUID(bytes=message)) if message else ""


@command(messages_app, "dead-letters", "dead-letters", "dead-letters --region us --limit 10", "dead-letters --json")
def dead_letters(
    region: Annotated[
        list[str] | None, typer.Option("--region", metavar="R", help="Only this region; again for more. Default: all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many per region, the oldest first.")] = 100,
    json_: Json = False,
) -> None:
    """Show what the consumer could not keep, and why.

    Where in the log it came from and for which reason; never the content.
    """
    from stores import kafka  # noqa: PLC0415

    screen, (config, regions) = report.screen(json_), load(region)
    with report.progress(screen, "reading dead letters"):
        found = [(name, one) for name in regions for one in kafka.read_dead_letters(config.kafka, name, limit)]
    headings = ("set aside (UTC)", "topic", ">partition", ">offset", "reason")
    rows = [(report.second(_at(one)), one.topic, str(one.partition), str(one.offset), one.reason) for _, one in found]
    document = {"dead_letters": [_letter(name, one) for name, one in found]}
    screen.show(document, report.table(headings, rows) if rows else "no dead letters")


def _letter(region: str, one: DeadLetter) -> dict[str, Any]:
    origin = {"topic": one.topic, "partition": one.partition, "offset": one.offset}
    return {"region": region, "at": _at(one), **origin, "reason": one.reason}


def _at(one: DeadLetter) -> datetime:
    return ids.UNIX_EPOCH + timedelta(milliseconds=one.timestamp_ms)
