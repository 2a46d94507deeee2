"""Which services are the local stack's own, and where they answer.

What the settings name is not ours; but settings that were loaded while the stack ran hold what the stack itself wrote
down, and that still counts as ours.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core import settings as settings_
from core.errors import RefusedError
from core.settings import ENDPOINTS_FILE, Cassandra, Settings
from ops.probes import LOOPBACK
from ops.processes import read_json, write_json


def local_services(settings: Settings) -> tuple[str, ...]:
    """Raises RefusedError where one node would have to be two datacenters."""
    bare = without_local(settings)
    centers = [center for center in (bare.hot, bare.warm) if not center.contact_points]
    if len({center.datacenter for center in centers}) > 1:
        raise RefusedError(
            f"the local stack has one datacenter, not {' and '.join(sorted(center.datacenter for center in centers))}",
            "give hot and warm the same datacenter, or contact points",
        )
    wanted = {"cassandra": bool(centers), "kafka": not bare.kafka.bootstrap, "valkey": not bare.redis.url}
    return tuple(name for name, ours in wanted.items() if ours)


def without_local(settings: Settings) -> Settings:
    """As configured, before any stack wrote down its endpoints."""
    known = remembered(settings)
    ours = tuple(known.get("cassandra", ()))
    return replace(
        settings,
        hot=_blank(settings.hot, ours),
        warm=_blank(settings.warm, ours),
        kafka=replace(settings.kafka, bootstrap=_unless(settings.kafka.bootstrap, known.get("kafka"))),
        redis=replace(settings.redis, url=_unless(settings.redis.url, known.get("redis"))),
    )


def with_local(settings: Settings) -> Settings:
    return settings_.with_local_secrets(settings_.with_endpoints(settings, remembered(settings)))


def configured_ports(settings: Settings) -> dict[str, int]:
    """A port without contact points is a wish for the local node."""
    hot = without_local(settings).hot
    return {"cassandra": hot.port} if not hot.contact_points and hot.port != Cassandra.port else {}


def remember(settings: Settings, names: tuple[str, ...], ports: Mapping[str, int]) -> None:
    every = {
        "cassandra": ("cassandra", [LOOPBACK, ports.get("cassandra")]),
        "kafka": ("kafka", f"{LOOPBACK}:{ports.get('kafka')}"),
        "valkey": ("redis", f"redis://{LOOPBACK}:{ports.get('valkey')}"),
    }
    write_json(settings.state_dir / ENDPOINTS_FILE, dict(every[name] for name in names))


def remembered(settings: Settings) -> dict[str, Any]:
    return read_json(settings.state_dir / ENDPOINTS_FILE) or {}


def _blank(center: Cassandra, ours: tuple[Any, ...]) -> Cassandra:
    is_ours = (*center.contact_points, center.port) == ours
    return replace(center, contact_points=(), port=Cassandra.port) if is_ours else center


def _unless(value: str, ours: str | None) -> str:
    return "" if value == ours else value
