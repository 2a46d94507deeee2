"""What the demo shows for its end: every tier counted afresh against what was sent, and messages read back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from core import digest, ids, settings, weeks
from core.errors import DamagedError
from core.overlay import Row, merge_all, row_of, visible
from core.tiers import Tier, target
from lakehouse.census import Count, census
from lakehouse.reader import Page, read_page
from lakehouse.site import opened
from ops import sample
from schemas.events import Event, MessageEdited

PAGE_ROWS = 200


@dataclass(frozen=True)
class Story:
    """What was done when: history of [history, start) imported, traffic of [start, end) sent; `frozen_week` asked for
    at `asked_at` and there at `readable_at`."""

    history: datetime
    start: datetime
    end: datetime
    frozen_week: int
    asked_at: datetime
    readable_at: datetime


@dataclass(frozen=True)
class LateEdit:
    """An edit of a message whose week was cold by then; `found` is the message as it is read now."""

    week: int
    edited_at: datetime
    tier: Tier
    found: Row


@dataclass(frozen=True)
class Thaw:
    """One conversation's part of a frozen week: while it waited, and after the clock had moved on."""

    week: int
    waited: str
    messages: int


@dataclass(frozen=True)
class Report:
    """What the demo ended with; `sent` and `found` are over canonical rows."""

    counts: Mapping[str, list[Count]]
    sent: digest.Digest
    found: digest.Digest
    conversation: bytes
    region: str
    page: list[tuple[Tier, Row]]
    edit: LateEdit
    thaw: Thaw
    seconds: float


def gather(config: settings.Settings, story: Story, seconds: float) -> Report:
    """Counts every tier afresh, and holds it against what the sample says was sent."""
    sent = merge_all(row_of(event) for event in events_of(config, story))
    counts = {}
    for region in config.regions:
        with opened(config, region, story.asked_at) as site:
            counts[region] = census(site)
    found = sum((each.digest for region in counts.values() for each in region), digest.Digest())
    expected = digest.of_rows(sent.values())
    if found != expected:
        raise DamagedError(
            f"{expected.rows:,} rows sent, {found.rows:,} found, digests {expected} and {found}",
            "look at ./firn dead-letters and ./firn status; nothing more is dropped before this is understood",
        )
    conversation = widest_conversation(sent.values(), counts, config.regions)
    region = sample.region_of(conversation, config.regions)
    page = page_of(config, region, conversation, story.readable_at)
    edit, thaw = late_edit(config, story), thawed(config, story, sent.values())
    return Report(counts, expected, found, conversation, region, page, edit, thaw, seconds)


def events_of(config: settings.Settings, story: Story) -> Iterable[Event]:
    yield from sample.messages(story.history, story.start)
    for _, event in sample.traffic(story.start, story.end, config.regions):
        yield event


def widest_conversation(rows: Iterable[Row], counts: Mapping[str, list[Count]], regions: tuple[str, ...]) -> bytes:
    """One that can be read back across the most tiers; of those the one with the fewest messages."""
    tiers = {(region, each.unit.week): each.unit.tier for region, all_ in counts.items() for each in all_}
    seen: dict[bytes, list[Tier | None]] = {}
    for row in visible(rows):
        region = sample.region_of(row.conversation_id, regions)
        seen.setdefault(row.conversation_id, []).append(tiers.get((region, weeks.of_id(row.message_id))))
    return max(seen, key=lambda conversation: (len(set(seen[conversation])), -len(seen[conversation]), conversation))


def page_of(config: settings.Settings, region: str, conversation: bytes, now: datetime) -> list[tuple[Tier, Row]]:
    """The whole conversation, page by page, each message with the tier it came from; what waits is not in it."""
    read: list[tuple[Tier, Row]] = []
    before: bytes | None = None
    with opened(config, region, now) as site:
        while True:
            page = read_page(site, conversation, before, PAGE_ROWS)
            read += [(page.tiers[weeks.of_id(row.message_id)], row) for row in page.rows]
            before = page.before
            if before is None:
                return read


def late_edit(config: settings.Settings, story: Story) -> LateEdit:
    """The first of the traffic that hit a week without tables: through the lane and a fold into its file."""
    edit = next(event for event in events_of(config, story) if _is_late(event, story, config.tiers))
    region = sample.region_of(edit.conversation_id, config.regions)
    page = _page_at(config, region, edit.conversation_id, edit.message_id, story.asked_at)
    week = weeks.of_id(edit.message_id)
    (found,) = [row for row in page.rows if row.message_id == edit.message_id]
    return LateEdit(week, ids.instant(edit.event_id), page.tiers[week], found)


def _is_late(event: Event, story: Story, policy: settings.Tiers) -> bool:
    week = weeks.of_id(event.message_id)
    if not isinstance(event, MessageEdited) or weeks.end(week) > story.start:
        return False
    return target(week, ids.instant(event.event_id), policy) is Tier.COLD


def thawed(config: settings.Settings, story: Story, rows: Iterable[Row]) -> Thaw:
    """A conversation of that week, read when it was only asked for, and when it had come back."""
    mine = [row for row in visible(rows) if weeks.of_id(row.message_id) == story.frozen_week]
    newest = max(mine, key=lambda row: row.message_id)
    region = sample.region_of(newest.conversation_id, config.regions)
    pages = [
        _page_at(config, region, newest.conversation_id, newest.message_id, now)
        for now in (story.asked_at, story.readable_at)
    ]
    waiting = pages[0].missing[story.frozen_week]
    return Thaw(story.frozen_week, waiting.sentence, len(pages[1].rows))


def _page_at(config: settings.Settings, region: str, conversation: bytes, message_id: bytes, now: datetime) -> Page:
    """From one message down."""
    above = (int.from_bytes(message_id, "big") + 1).to_bytes(len(message_id), "big")
    with opened(config, region, now) as site:
        return read_page(site, conversation, above, PAGE_ROWS)
