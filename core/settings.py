"""One frozen `Settings`: firn.toml, then the environment, then what the local stack remembers.

`parse` is pure and reports every fault at once; `load` is the only function here that reads files.
An endpoint that is configured is used as it is; one that is not belongs to the local stack.
"""

import json
import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import RefusedError

ENVIRONMENT_PREFIX = "FIRN_"
SETTINGS_VARIABLE = "FIRN_SETTINGS"
ENDPOINTS_FILE = "endpoints.json"
VAULT_KEY_FILE = Path("secrets") / "vault-wrapping-key"
MIB = 1024 * 1024


class Secret(str):
    """A string that never prints itself."""

    def __repr__(self) -> str:
        return "'***'"

    def reveal(self) -> str:
        return str.__str__(self)

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return format("***", format_spec)


@dataclass(frozen=True)
class Cassandra:
    """One datacenter of the cluster. No contact points: the local stack's. ScyllaDB speaks protocol 4."""

    contact_points: tuple[str, ...] = ()
    port: int = 9042
    datacenter: str = "datacenter1"
    protocol_version: int = 5
    username: str = ""
    password: Secret = Secret("")
    replication: int = 1


@dataclass(frozen=True)
class Kafka:
    bootstrap: str = ""
    partitions: int = 4
    replication: int = 1


@dataclass(frozen=True)
class Redis:
    url: str = ""


@dataclass(frozen=True)
class Objects:
    """`url` is a directory (`file:…`) or `s3://prefix`: bucket names are prefix + region."""

    url: str = ""
    endpoint: str = ""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: Secret = Secret("")


@dataclass(frozen=True)
class Spark:
    master: str = "local[2]"
    driver_memory: str = "1g"


@dataclass(frozen=True)
class Layout:
    """`slices` and `ring_slices` are fixed for the life of a region: 1 and 16 locally, 64 and 4,096 at full scale.
    `copy_shards` is N of hot → warm, where it only says how far the copy spreads; that of a cold unit follows
    from its bytes."""

    slices: int = 1
    ring_slices: int = 16
    copy_shards: int = 4
    shard_bytes: int = 256 * MIB
    row_group_bytes: int = 800_000
    tables_ahead_weeks: int = 2


@dataclass(frozen=True)
class Tiers:
    hot_days: int = 7
    warm_days: int = 30
    cold_days: int = 365
    grace_days: int = 1


@dataclass(frozen=True)
class Frozen:
    """`text_class` is where frozen messages lie. A freeze must pay for itself within `horizon_months`; a restored copy
    stays for `restored_days`."""

    text_class: str = "GLACIER"
    horizon_months: int = 24
    restored_days: int = 7


@dataclass(frozen=True)
class Vault:
    """`wrapping_key`, 32 bytes in base64, wraps the key of every person. Empty: the local stack's, made there once."""

    wrapping_key: Secret = Secret("")


@dataclass(frozen=True)
class Maintenance:
    """`replaced_days`, by `now`, is how long a file stays that another took the place of. The others are real time:
    what nothing names is left alone for `orphan_hours`, longer than any job runs; what a table's log said stays for
    `log_days` after a checkpoint holds it, and one is made every `checkpoint_commits`."""

    replaced_days: int = 1
    orphan_hours: int = 24
    log_days: int = 7
    checkpoint_commits: int = 50


@dataclass(frozen=True)
class Clocks:
    """`ledger_age_seconds` is T of the design: no copy of the ledger in any process is older."""

    ledger_age_seconds: float = 2.0
    longest_read_seconds: float = 5.0
    lease_seconds: float = 60.0
    gate_seconds: float = 120.0


@dataclass(frozen=True)
class Settings:
    state_dir: Path = Path(".firn")
    regions: tuple[str, ...] = ("us", "eu")
    hot: Cassandra = field(default_factory=Cassandra)
    warm: Cassandra = field(default_factory=Cassandra)
    kafka: Kafka = field(default_factory=Kafka)
    redis: Redis = field(default_factory=Redis)
    objects: Objects = field(default_factory=Objects)
    spark: Spark = field(default_factory=Spark)
    layout: Layout = field(default_factory=Layout)
    tiers: Tiers = field(default_factory=Tiers)
    frozen: Frozen = field(default_factory=Frozen)
    vault: Vault = field(default_factory=Vault)
    maintenance: Maintenance = field(default_factory=Maintenance)
    clocks: Clocks = field(default_factory=Clocks)

    def require_region(self, region: str) -> str:
        if region not in self.regions:
            raise RefusedError(
                f"region {region!r} is not one of {', '.join(self.regions)}",
                "name a configured region, or add it to `regions` in firn.toml",
            )
        return region


def parse(document: Mapping[str, Any], environment: Mapping[str, str] | None = None, base: Path = Path()) -> Settings:
    """Raises RefusedError that lists every unknown key and every value of a wrong type.

    `environment` entries read `FIRN_SECTION__KEY` (or `FIRN_KEY` at the top) and win over the document.
    Relative paths are taken from `base`.
    """
    faults: list[str] = []
    merged = _with_environment(document, environment or {})
    settings: Settings = _build(Settings, merged, "", faults)
    if not faults and settings.maintenance.orphan_hours < 1:
        faults.append("maintenance.orphan_hours must be at least 1, for younger files may belong to a job that runs")
    if faults:
        raise RefusedError("settings: " + "; ".join(faults), "correct firn.toml or the FIRN_… variables and run again")
    return replace(settings, state_dir=(base / settings.state_dir).absolute())


def load(path: Path | None = None) -> Settings:
    """Reads `path` (else $FIRN_SETTINGS, else ./firn.toml when it is there), and what the local stack wrote down."""
    path = path or Path(os.environ.get(SETTINGS_VARIABLE, "firn.toml"))
    if not path.exists() and SETTINGS_VARIABLE in os.environ:
        raise RefusedError(f"settings file {path} does not exist", f"correct ${SETTINGS_VARIABLE}")
    try:
        document = tomllib.loads(path.read_text()) if path.exists() else {}
    except tomllib.TOMLDecodeError as fault:
        raise RefusedError(f"{path.name} is not TOML: {fault}", "correct the line it names") from fault
    settings = parse(document, os.environ, path.absolute().parent)
    remembered = settings.state_dir / ENDPOINTS_FILE
    endpoints = json.loads(remembered.read_text()) if remembered.exists() else {}
    return with_local_secrets(with_endpoints(settings, endpoints))


def with_local_secrets(settings: Settings) -> Settings:
    """Fills what is not configured with the secrets that the local stack has made."""
    kept = settings.state_dir / VAULT_KEY_FILE
    if settings.vault.wrapping_key or not kept.exists():
        return settings
    return replace(settings, vault=Vault(Secret(kept.read_text())))


def with_endpoints(settings: Settings, endpoints: Mapping[str, Any]) -> Settings:
    """Fills what is not configured with what the local stack remembers: `cassandra` [host, port], `kafka`, `redis`."""
    if "cassandra" in endpoints:
        host, port = endpoints["cassandra"]
        local = {"contact_points": (host,), "port": port}
        settings = replace(
            settings,
            hot=settings.hot if settings.hot.contact_points else replace(settings.hot, **local),
            warm=settings.warm if settings.warm.contact_points else replace(settings.warm, **local),
        )
    if "kafka" in endpoints and not settings.kafka.bootstrap:
        settings = replace(settings, kafka=replace(settings.kafka, bootstrap=endpoints["kafka"]))
    if "redis" in endpoints and not settings.redis.url:
        settings = replace(settings, redis=replace(settings.redis, url=endpoints["redis"]))
    if not settings.objects.url:
        settings = replace(settings, objects=replace(settings.objects, url=f"file:{settings.state_dir / 'objects'}"))
    return settings


def _with_environment(document: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()}
    for name, value in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name == SETTINGS_VARIABLE:
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not key:
            merged[section] = value
        elif isinstance(merged.setdefault(section, {}), dict):
            merged[section][key] = value
        else:
            merged[f"{section}.{key}"] = value  # no section has this name, so this is no setting
    return merged


def _build(kind: type[Any], values: Any, prefix: str, faults: list[str]) -> Any:
    if not isinstance(values, Mapping):
        faults.append(f"[{prefix.rstrip('.')}] must be a table")
        return kind()
    types = typing.get_type_hints(kind)
    faults += [f"{prefix}{key} is not a setting" for key in values if key not in types]
    chosen = {
        key: _build(types[key], value, f"{key}.", faults)
        if is_dataclass(types[key])
        else _cast(types[key], value, f"{prefix}{key}", faults)
        for key, value in values.items()
        if key in types
    }
    return kind(**chosen)


def _cast(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    try:
        if kind == tuple[str, ...]:
            return _strings(value)
        is_other_number = isinstance(value, bool) or (kind is int and isinstance(value, float))
        is_no_text = issubclass(kind, (str, Path)) and not isinstance(value, (str, Path))
        if is_other_number or is_no_text:
            raise ValueError
        return kind(value)
    except (TypeError, ValueError):
        faults.append(f"{name} must be {getattr(kind, '__name__', kind)}")
        return None


def _strings(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError
    return tuple(items)


def redacted(settings: Settings) -> dict[str, Any]:
    """As plain data for printing: secrets are stars."""
    return {f.name: _plain(getattr(settings, f.name)) for f in fields(settings)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return str(value) if isinstance(value, (Secret, Path)) else value
