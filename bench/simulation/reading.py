"""Readers: walks through a conversation page by page by the product's own reader, each page held against what was
said (I7, I8)."""

from itertools import pairwise

from bench.simulation.chance import Stream
from bench.simulation.scenes import open_site
from bench.simulation.truth import Found, Known
from bench.simulation.world import World
from core import weeks
from core.errors import BlockedError, OutcomeUnknownError
from core.overlay import Row
from lakehouse import reader
from lakehouse.reader import Page
from stores.objects import NotFoundError

HIGHEST = b"\xff" * 16
_TRIES = 3


def walk(world: World, chance: Stream, conversation: bytes, is_calm: bool = False) -> dict[bytes, Known]:
    """What the whole walk showed, by message."""
    shown: dict[bytes, Known] = {}
    before: bytes | None = None
    limit = 1 + chance.whole(4)
    while not world.broken:
        must = world.truth.snapshot(conversation)
        page = _page(world, conversation, before, limit, is_calm)
        if page is None:
            return shown
        _judge(world, conversation, before, page, must)
        shown |= {row.message_id: known_of(row) for row in page.rows}
        before = page.before
        if before is None:
            break
    return shown


def _page(world: World, conversation: bytes, before: bytes | None, limit: int, is_calm: bool) -> Page | None:
    """None when the stores did not answer; in a calm they must."""
    where = open_site(world)
    for _ in range(_TRIES):
        began = world.scheduler.now
        try:
            return reader.read_page(where, conversation, before, limit)
        except (BlockedError, OutcomeUnknownError) as fault:
            if is_calm:
                world.breaks("after the faults everything answers", f"a page: {fault.what}")
        except NotFoundError:
            # Days pass in seconds here: what is kept for days may be gone for a reader that stood still.
            if world.scheduler.now - began <= world.config.clocks.longest_read_seconds:
                raise
    return None


def _judge(world: World, conversation: bytes, before: bytes | None, page: Page, must: Found) -> None:
    shown = [row.message_id for row in page.rows]
    top, bottom = before or HIGHEST, page.before or b""
    name = world.conversation_name(conversation)
    world.tell(f"reads {name}: {', '.join(world.names.get(one, '?') for one in shown) or 'nothing'}")
    if any(one <= other for one, other in pairwise(shown)) or any(one >= top for one in shown):
        world.breaks("once and in order", f"a page of {name} shows {[world.names.get(one) for one in shown]}")
    for row in page.rows:
        key = (conversation, row.message_id)
        if why := world.truth.is_allowed(known_of(row), must.get(key, Known()), key):
            world.breaks("a page shows what was said", f"{world.name_of(key)}: {why}")
    for key, known in must.items():
        is_due = bottom <= key[1] < top and known.is_sent and key[1] not in shown
        if is_due and not _is_excused(world, page, key[1]) and not world.truth.possible_deletion(key):
            world.breaks("a page shows all that is durable", f"{world.name_of(key)} is missing")


def _is_excused(world: World, page: Page, message: bytes) -> bool:
    """Its week is named as missing, and truly waits for a restore."""
    return weeks.of_id(message) in page.missing and world.config.frozen.text_class != "GLACIER_IR"


def known_of(row: Row) -> Known:
    edit = (row.edit_id, row.body) if row.edit_id else None
    reactions = tuple((one.user_id, one.event_id, one.reaction) for one in row.reactions)
    return Known(row.is_message, None if edit else row.body, edit, row.deleted, reactions)
