"""The laws that hold after each step, judged from the stores alone (I1 to I13 of the reliability note).

Where readers look is spelled out here once more, from docs/architecture.md and not from the product's code: what is
durable must be found there at any instant, by any quorum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.simulation import raw
from bench.simulation.bucket import Version
from bench.simulation.cluster import NODES
from bench.simulation.truth import Found, add, lacking
from bench.simulation.watch import Cells
from bench.simulation.world import World

_FOLLOWS = {
    "open": ("open", "sealed"),
    "sealed": ("sealed", "copied", "open"),
    "copied": ("copied", "sealed", "verified"),
    "verified": ("verified", "sealed", "switched"),
    "switched": ("switched", "dropped"),
    "dropped": ("dropped", "open"),
}
_CQL = ("hot", "warm")


@dataclass
class Laws:
    world: World
    proven: dict[int, Found] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        watch = self.world.watch
        watch.dropping, watch.dropped, watch.deleted, watch.ledger = (
            self._dropping,
            self._dropped,
            self._out,
            self._ledger,
        )
        watch.committed, watch.object_deleted, watch.kept = self._committed, self._purged, self.readable

    # what the stores tell

    def _ledger(self, table: str, keys: Cells, before: Cells, after: Cells) -> None:
        match table.rpartition(".")[2]:
            case "moves":
                self._moved(keys, before, after)
            case "pointers":
                self._pointed(keys, before, after)
            case "frozen" | "move_parts":
                if before.get("epoch", 0) > after["epoch"]:
                    self.world.breaks("no effect of an old epoch", f"{table} {keys} goes from {before} to {after}")
                if table.endswith("frozen") and after.get("path"):
                    self._frozen(after["path"])
                    self.readable(keys["week"])
            case "leases":
                self._leased(keys, before, after)
            case "runs":
                if after.get("folded"):
                    self.world.imported(keys["name"])
                    self.readable(keys["week"])
            case "weeks":
                self.world.tell(
                    f"ledger: tables of {keys['tier']} {self.world.name_of_week(keys['week'])} are {after['state']}"
                )

    def _moved(self, keys: Cells, before: Cells, after: Cells) -> None:
        world = self.world
        told = f"{after['state']} ({after['source']} to {after['sink']}), epoch {after['epoch']}"
        more = f", generation {after['generation']}" if after["generation"] else ""
        settled = ", settled" if after["settled"] else ""
        world.tell(f"ledger: {world.name_of_week(keys['week'])}/{keys['slice']} {told}{settled}{more}")
        if before and (after["revision"] <= before["revision"] or after["epoch"] < before["epoch"]):
            self.world.breaks("no effect of an old epoch", f"a unit goes from {before} to {after}")
        gives_up = (before.get("state"), after["state"]) == ("sealed", "open")
        if before and (after["state"] not in _FOLLOWS[before["state"]] or (gives_up and after["sink"] != "frozen")):
            self.world.breaks("states follow each other", f"{after['state']} comes after {before['state']}")
        if after["state"] == "verified" and before["state"] == "copied":
            self.proven[keys["week"]] = self._source(keys["week"], after)
        if any(before.get(fact) != after[fact] for fact in ("state", "sink", "shards", "generation")):
            self.readable(keys["week"])

    def _source(self, week: int, unit: Cells) -> Found:
        return raw.in_tables(self.world, unit["source"], week, NODES) if unit["source"] in _CQL else {}

    def _pointed(self, keys: Cells, before: Cells, after: Cells) -> None:
        place = f"{self.world.name_of_week(keys['week'])}/{keys['slice']} shard {keys['shard']} of {keys['shards']}"
        if after.get("path") is not None:
            self.world.tell(f"ledger: pointer {place} → {after['path'] or 'nothing'}, version {after['version']}")
        if before.get("version", -1) > after["version"]:
            self.world.breaks("a pointer only moves forward", f"{place} from {before['version']} to {after['version']}")
        if before:
            self.readable(keys["week"])

    def _leased(self, keys: Cells, before: Cells, after: Cells) -> None:
        """Who took which epoch of it; a lease that was given up is no longer held by anybody."""
        process, name = self.world.scheduler.current.process, keys["name"]
        if after["epoch"] > before.get("epoch", 0):
            process.leases[name] = after["epoch"]
            self.world.tell(f"takes the lease {name}, epoch {after['epoch']}")

    def _out(self, table: str, keys: Cells) -> None:
        if table.endswith(".lane"):
            self.world.tell(f"takes {self.world.event_name(keys)} out of the lane")
            slice_ = self.world.slice_of(keys["conversation_id"].bytes)
            self._holds_lease(f"unit/{self.world.region}/{keys['week']}/{slice_}", "clears the lane")
            self.readable(keys["week"])

    def _dropping(self, table: str) -> None:
        keyspace, _, name = table.partition(".")
        tier, week = keyspace.rpartition("_")[2], int(name.rpartition("_w")[2])
        self.world.tell(f"drops {table}")
        self._holds_lease(f"ddl/{self.world.region}", "drops a table")
        if name.startswith("messages"):
            self._may_drop(tier, week)

    def _dropped(self, table: str) -> None:
        self.readable(int(table.rpartition("_w")[2]))

    def _committed(self, uri: str, version: Version, entries: Sequence[Any]) -> None:
        """A place has one live file at most; every live file is there."""
        adds = [entry["add"] for entry in entries if "add" in entry]
        removes = [entry["remove"] for entry in entries if "remove" in entry]
        for action in (*adds, *removes):
            self.world.tell(f"commits version {version.number}: {'+' if action in adds else '-'} {action['path']}")
        for transaction in (entry["txn"] for entry in entries if "txn" in entry):
            self._numbered(uri, transaction["appId"], transaction["version"])
        if "/frozen/" in uri:
            return
        places: dict[tuple[str, str], str] = {}
        for path, action in version.live.items():
            place = (action["partitionValues"]["week"], action["partitionValues"]["shard"])
            if other := places.get(place):
                self.world.breaks("nothing twice", f"{path} and {other} are both live")
            places[place] = path
            if self.world.objects.peek(f"{uri[uri.index('/lake/') + 1 :]}/{path}") is None:
                self.world.breaks("a live file is there", path)

    def _numbered(self, uri: str, app: str, number: int) -> None:
        self._holds_lease(app, "commits")
        last = self.numbers.get((uri, app), -1)
        if number <= last:
            self.world.breaks("no effect of an old epoch", f"{app} commits number {number} after {last}")
        self.numbers[uri, app] = number

    def _purged(self, key: str) -> None:
        if not key.endswith(".parquet"):
            return
        self.world.tell(f"purges {key}")
        if self.world.lake.holds(key):
            self.world.breaks("a live file is there", f"{key} is deleted")

    # the laws

    def readable(self, week: int) -> None:
        """Whoever reads now finds all that is durable."""
        wanted = self.world.truth.durable.get(week)
        if not wanted or self.world.broken:
            return
        tables = [f"{self.world.region}_hot.lane"]
        tables += [name for tier in _CQL for name in raw.week_tables(self.world.region, tier, week)]
        for nodes in raw.quorums(self.world, tables):
            found = self.found(week, nodes)
            for key, what in lacking(found, wanted):
                self.world.breaks("nothing lost", f"{self.world.name_of(key)} is not to be read: {what} is missing")
                return

    def found(self, week: int, nodes: Sequence[int]) -> Found:
        """By what the ledger says now, as a reader would look."""
        found = raw.in_lane(self.world, week, nodes)
        for slice_ in range(self.world.slices):
            unit = self.world.unit(week, slice_)
            for key, known in self._of_unit(week, slice_, unit, nodes) if unit else ():
                if self.world.slice_of(key[0]) == slice_:
                    add(found, key, known)
        return found

    def _of_unit(self, week: int, slice_: int, unit: Cells, nodes: Sequence[int]) -> Iterator[Any]:
        for tier in where(unit):
            if tier in _CQL:
                yield from raw.in_tables(self.world, tier, week, nodes).items()
            elif tier == "cold":
                yield from self._in_cold(week, slice_, unit)
            else:
                yield from self._in_frozen(week, slice_, unit)

    def _in_cold(self, week: int, slice_: int, unit: Cells) -> Iterator[Any]:
        pointers = {
            row.keys["shard"]: row.value("path")
            for row in self.world.cluster.rows(f"{self.world.region}_meta.pointers")
            if (row.keys["week"], row.keys["slice"], row.keys["shards"]) == (week, slice_, unit["shards"])
        }
        shards = [shard for shard, path in pointers.items() if path]
        if unit["shards"] and not unit["generation"] and len(shards) < unit["shards"]:
            self.world.breaks("a reader finds its file", f"{self.world.name_of_week(week)} lacks pointers")
        for shard in shards:
            held = raw.in_file(self.world, f"lake/messages/s{slice_:03d}/{pointers[shard]}")
            if held is None:
                self.world.breaks("a reader finds its file", f"{pointers[shard]} is gone")
                return
            yield from (one for one in held.items() if self._shard(one[0][0], unit["shards"]) == shard)

    def _shard(self, conversation: bytes, shards: int) -> int:
        return raw.shard_of(self.world.token(conversation), self.world.slices * shards) % shards

    def _in_frozen(self, week: int, slice_: int, unit: Cells) -> Iterator[Any]:
        generations = unit["generation"] + (unit["sink"] == "frozen" and unit["state"] == "dropped")
        for row in self.world.cluster.rows(f"{self.world.region}_meta.frozen"):
            is_ours = (row.keys["week"], row.keys["slice"]) == (week, slice_) and row.value("path")
            if is_ours and row.keys["generation"] < generations:
                held = raw.in_file(self.world, row.value("path"))
                if held is None:
                    self.world.breaks("a reader finds its file", f"{row.value('path')} is gone")
                    return
                yield from held.items()

    def _may_drop(self, tier: str, week: int) -> None:
        """What the tables hold is below already: on each replica of a warm sink alone, for what was proven."""
        sources = raw.in_tables(self.world, tier, week, NODES)
        proven = {key: known for key, known in self.proven.get(week, {}).items() if sources.get(key) == known}
        below = {"hot": "warm"}.get(tier)
        cases = [(NODES, sources), *(((node,), proven) for node in NODES)] if below else [(NODES, sources)]
        for nodes, wanted in cases:
            found = raw.in_lane(self.world, week, NODES)
            for key, known in raw.in_tables(self.world, below, week, nodes).items() if below else self._cold_of(week):
                add(found, key, known)
            for key, what in lacking(found, wanted):
                where_ = f"not in {below or 'cold'}, replicas {nodes}"
                self.world.breaks("no drop before proof", f"{what} of {self.world.name_of(key)} is {where_}")
                return

    def _cold_of(self, week: int) -> Iterator[Any]:
        for slice_ in range(self.world.slices):
            if unit := self.world.unit(week, slice_):
                yield from self._in_cold(week, slice_, unit)

    def _frozen(self, path: str) -> None:
        """What is sealed can be opened: reference and key of everybody in it are there."""
        held = raw.in_file(self.world, path)
        if held is None:
            return
        subjects = self.world.cluster.serial.get(f"{self.world.region}_vault.subjects", {}).get((path,), {})
        people = {row.value("user_id") for row in subjects.values()}
        keys = {row.keys["user_id"] for row in self.world.cluster.rows(f"{self.world.region}_vault.person_keys")}
        if not people <= keys or (held and not people):
            self.world.breaks("frozen values can be opened", f"keys of {path} are missing")

    def _holds_lease(self, name: str, doing: str) -> None:
        """Whoever lost his lease may do what cannot be undone only if he looked at it after his last waiting."""
        process, scheduler = self.world.scheduler.current.process, self.world.scheduler
        for held, epoch in process.leases.items():
            if held != name:
                continue
            row = self.world.cluster.row(f"{self.world.region}_meta.leases", held)
            if row and row.value("epoch") > epoch and process.looked_at.get(held, -1.0) <= process.waited_at:
                how = f"{process.name} {doing} at {scheduler.now:.1f} s under epoch {epoch} of {held}, without a look"
                self.world.breaks("no irreversible step without a look at the lease", how)


def where(unit: Cells) -> list[str]:
    older = ["frozen"] if unit["generation"] else []
    if unit["state"] == "dropped":
        return [unit["sink"]]
    if unit["state"] == "switched" and unit["sink"] != "frozen":
        return [unit["source"], unit["sink"]]
    return [unit["source"], *older]
