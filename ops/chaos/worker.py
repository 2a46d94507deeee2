"""A process that runs one job on one week and meets its fate at one step of it."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from core import steps
from core.errors import FirnError
from core.settings import Settings
from jobs import drop, fold, move
from ops.chaos.proxy import LOOPBACK, Protocol, Proxy
from ops.chaos.trials import Fate, Trial, WireTrial

REQUESTS = "~ "


@dataclass(frozen=True)
class Order:
    """Without a trial the job runs to its end. `log` gets a line per step, then the requests that were sent by each
    protocol, and at last how the job ended."""

    config: Settings
    job: str
    now: datetime
    week: int
    trial: Trial | WireTrial | None
    log: Path


def run_job(job: str, config: Settings, now: datetime, weeks: list[int]) -> None:
    """In this process, without Spark."""
    match job:
        case "move":
            move.run(None, config, now, config.regions, weeks, quiet)
        case "drop":
            drop.run(None, config, now, config.regions, weeks, True, quiet)
        case _:
            fold.run(None, config, now, config.regions, weeks, quiet)


def work(order: Order) -> None:
    """Ends with the exit code of the job's error; one that is none of ours is told on stderr, and ends with 1."""
    with order.log.open("w", buffering=1) as log:
        seen: Counter[str] = Counter()

        def watch(name: str, is_done: bool) -> None:
            seen[name] += not is_done
            if not is_done:
                log.write(f"{name}\n")
            trial = order.trial
            if not isinstance(trial, Trial):
                return
            if (name, seen[name], is_done) == (trial.step, trial.nth, trial.fate is Fate.KILLED_AFTER):
                os.kill(os.getpid(), signal.SIGSTOP if trial.fate is Fate.FROZEN_BEFORE else signal.SIGKILL)

        steps.watch(watch)
        config, proxies = proxied(order.config, order.trial)
        code = _ended(replace(order, config=config), log.write)
        log.writelines(f"{REQUESTS}{proxy.protocol} {proxy.seen}\n" for proxy in proxies)
    os._exit(code)  # without the goodbyes of a pool of connections


def proxied(config: Settings, trial: Trial | WireTrial | None) -> tuple[Settings, list[Proxy]]:
    """The settings by which all requests go through proxies, one of which may do harm."""
    if isinstance(trial, Trial):
        return config, []
    kafka_host, kafka_port = config.kafka.bootstrap.split(",")[0].rsplit(":", 1)
    cql = Proxy(Protocol.CQL, config.hot.contact_points[0], config.hot.port)
    kafka = Proxy(Protocol.KAFKA, kafka_host, int(kafka_port))
    port = cql.start()
    config = replace(
        config,
        hot=replace(config.hot, contact_points=(LOOPBACK,), port=port),
        warm=replace(config.warm, contact_points=(LOOPBACK,), port=port),
        kafka=replace(config.kafka, bootstrap=f"{LOOPBACK}:{kafka.start()}"),
    )
    proxies = [cql, kafka]
    if config.objects.endpoint:
        store = urlsplit(config.objects.endpoint)
        http = Proxy(Protocol.HTTP, store.hostname or LOOPBACK, store.port or 80)
        proxies.append(http)
        config = replace(config, objects=replace(config.objects, endpoint=f"http://{LOOPBACK}:{http.start()}"))
    for proxy in proxies:
        if trial and proxy.protocol is trial.protocol:
            proxy.harm, proxy.at = trial.harm, trial.nth
    return config, proxies


def _ended(order: Order, write: Callable[[str], object]) -> int:
    try:
        run_job(order.job, order.config, order.now, [order.week])
    except FirnError as fault:
        write(f"= {type(fault).__name__}: {fault.what}\n")
        return fault.exit_code
    write("= done\n")
    return 0


def quiet(_: str) -> None:
    pass
