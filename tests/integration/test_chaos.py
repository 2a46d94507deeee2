"""A quick set of `firn chaos`: what slept before each kind of step wakes up when another has done its work, replies are
lost on their way, and two processes work on one week at once. What is killed is in `test_killed`, by another checker.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from core.settings import Objects, Secret, Settings
from ops.chaos import run
from ops.chaos.proxy import Harm, Protocol
from ops.chaos.stage import Stage, staged
from ops.chaos.trials import PHASES, Fate, Phase, Trial, WireTrial
from ops.chaos.worker import Order, run_job
from tests.conftest import quiet

STEPS = {
    "hot to warm": ["ledger: unit changed", "ledger: next route", "ledger: part told", "lane: cleared"],
    "drop of hot": ["ledger: table marked", "tables: dropped", "ledger: unit changed"],
    "warm to cold": ["file: put", "ledger: part told", "lake: committed", "ledger: pointer moved"],
    "drop of warm": ["tables: dropped"],
    "fold into cold": ["file: put", "lake: committed", "ledger: pointer moved", "lane: cleared"],
    "cold to frozen": ["vault: keys made", "vault: references noted", "lake: committed", "ledger: frozen file told"],
    "drop of cold": ["lake: committed", "ledger: unit changed", "ledger: pointer retired"],
    "fold into frozen": ["lake: committed", "ledger: pointer moved", "ledger: unit changed", "lane: cleared"],
}
# Whose reply is lost. Early ones belong to the handshake of a session; there are more in each phase than that.
REQUESTS = {
    "hot to warm": {Protocol.CQL: 55, Protocol.KAFKA: 40},
    "drop of hot": {Protocol.CQL: 40},
    "warm to cold": {Protocol.CQL: 55, Protocol.KAFKA: 40, Protocol.HTTP: 30},
    "drop of warm": {Protocol.CQL: 40, Protocol.HTTP: 4},
    "fold into cold": {Protocol.CQL: 40, Protocol.HTTP: 30},
    "cold to frozen": {Protocol.CQL: 55, Protocol.HTTP: 40},
    "drop of cold": {Protocol.HTTP: 25},
    "fold into frozen": {Protocol.CQL: 55, Protocol.HTTP: 45},
}


@pytest.fixture
def on_s3(stack_settings: Settings) -> Iterator[Settings]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    objects = Objects("s3://firn-", f"http://{host}:{port}", access_key="firn", secret_key=Secret("firn-secret"))
    yield replace(stack_settings, objects=objects)
    server.stop()


def require_harmless(config: Settings, planned: dict[Phase, list[run.AnyTrial]]) -> None:
    done = run.run(config, planned, quiet)
    assert done["trials"] == sum(map(len, planned.values()))
    assert done["rows"] > 0


def test_what_sleeps_does_no_harm(on_s3: Settings) -> None:
    require_harmless(
        on_s3,
        {phase: [Trial(phase.name, step, 1, Fate.FROZEN_BEFORE) for step in STEPS[phase.name]] for phase in PHASES},
    )


def test_what_loses_its_replies_does_no_harm(on_s3: Settings) -> None:
    lost = {phase: REQUESTS[phase.name].items() for phase in PHASES}
    require_harmless(
        on_s3,
        {phase: [WireTrial(phase.name, via, nth, Harm.REPLY_LOST) for via, nth in lost[phase]] for phase in PHASES},
    )


@pytest.fixture(scope="module")
def stage(stack_settings: Settings) -> Iterator[Stage]:
    with staged(stack_settings, 2) as found:
        yield found


def test_of_two_schedulers_on_one_week_one_works_and_both_end_well(stage: Stage, tmp_path: Path) -> None:
    for phase in PHASES:
        if not phase.is_quiet:
            stage.change()
        run.judge(stage, phase)
        now = stage.now(phase.days)
        orders = [
            Order(stage.config, phase.job, now, week, None, tmp_path / f"{week}-{rival}.log")
            for week in stage.weeks
            for rival in range(2)
        ]
        children = [run.start(order) for order in orders]
        ends = [run.ended(child) for child in children]
        assert set(ends) <= {0, 3}, [order.log.read_text()[-500:] for order in orders]
        stage.check()
        run_job(phase.job, stage.config, now, list(stage.weeks))
        stage.check()
