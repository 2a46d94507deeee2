"""The local Airflow: its environment, its database, its four processes, and DAG runs that need none of them.

Its database and the tasks' logs lie in `<state>/airflow`, secrets in `<state>/secrets`. Every port is on loopback.
"""

import base64
import contextlib
import hashlib
import importlib.metadata
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from core.errors import BlockedError, FirnError, RefusedError
from core.settings import SETTINGS_VARIABLE, Settings
from ops import ports, processes
from ops.java import find_java
from ops.probes import LOOPBACK
from ops.processes import Child
from ops.secrets import made_once
from ops.services import as_environment

Say = Callable[[str], None]

REPOSITORY = Path(__file__).resolve().parents[1]
POOLS = REPOSITORY / "dags" / "pools.json"
START_SECONDS = 180.0
STOP_SECONDS = 20.0
PORT = "airflow"
# In a task's log the job's own lines matter; Spark's INFO lines would bury them.
SPARK_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %p %c{1}: %m%n%ex
"""
# The scheduler and the triggerer would open a log port on all interfaces; logs are files on this machine anyway.
COMPONENTS = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}


@dataclass(frozen=True)
class Run:
    """One DAG run that has ended; `log` is the file that the UI shows too."""

    dag_id: str
    run_id: str
    state: str
    log: Path


def home(settings: Settings) -> Path:
    return settings.state_dir / "airflow"


def environment(settings: Settings) -> dict[str, str]:
    """What an Airflow process needs beside what it inherits; makes the secrets the first time."""
    folder = home(settings)
    java = find_java(settings.state_dir, os.environ)
    variables = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW_CONFIG": str(REPOSITORY / "airflow.cfg"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "AIRFLOW_CONN_SPARK_DEFAULT": _spark_connection(settings),
        "SPARK_CONF_DIR": str(folder / "spark"),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONPATH": _joined(str(REPOSITORY), os.environ.get("PYTHONPATH", "")),
        "PATH": _joined(str(Path(sys.executable).parent), os.environ.get("PATH", "")),
        "JAVA_HOME": str(java.home),
        SETTINGS_VARIABLE: str(Path(os.environ.get(SETTINGS_VARIABLE, REPOSITORY / "firn.toml")).absolute()),
    }
    variables |= as_environment(settings)
    for name in ("NO_PROXY", "no_proxy"):  # tasks talk to the API server, and that is this machine
        variables[name] = ",".join(filter(None, (LOOPBACK, os.environ.get(name, ""))))
    if _is_local(settings):
        variables["SPARK_LOCAL_IP"] = LOOPBACK
    return variables | _secrets(settings) | _addresses(ports.remembered(settings.state_dir).get(PORT))


def _joined(*parts: str) -> str:
    return os.pathsep.join(part for part in parts if part)


def _is_local(settings: Settings) -> bool:
    return settings.spark.master.startswith("local")


def _spark_connection(settings: Settings) -> str:
    """As JSON: the URI form cannot hold `local[2]`, and with no connection at all Airflow submits to YARN."""
    return json.dumps({"conn_type": "spark", "host": settings.spark.master, "extra": {"deploy-mode": "client"}})


def _addresses(port: int | None) -> dict[str, str]:
    """The port stands in three places; where they disagree every task fails with a connection error."""
    if port is None:
        return {}
    return {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{port}/execution/",
    }


def _secrets(settings: Settings) -> dict[str, str]:
    """Shared by all processes: with one secret each, the API server would refuse what the scheduler signs."""
    folder = settings.state_dir / "secrets"
    return {
        "AIRFLOW__API_AUTH__JWT_SECRET": made_once(folder / "airflow-jwt", lambda: secrets.token_urlsafe(64)),
        "AIRFLOW__API__SECRET_KEY": made_once(folder / "airflow-api", lambda: secrets.token_urlsafe(32)),
        "AIRFLOW__CORE__FERNET_KEY": made_once(
            folder / "airflow-fernet", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        ),
    }


def prepare(settings: Settings, say: Say) -> None:
    """Makes the database, the pools and Spark's defaults; done once per Airflow version and pools file."""
    folder = home(settings)
    (folder / "spark").mkdir(parents=True, exist_ok=True)
    (folder / "spark" / "spark-defaults.conf").write_text(_spark_defaults(settings))
    (folder / "spark" / "log4j2.properties").write_text(SPARK_LOGGING)
    pools = hashlib.sha256(POOLS.read_bytes()).hexdigest()
    wanted = f"{importlib.metadata.version('apache-airflow')} {pools}\n"
    stamp = folder / "prepared"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("airflow: making its database")
    done = subprocess.run(
        [sys.executable, "-m", "ops.dagruns", "prepare", str(POOLS)],
        env=os.environ | environment(settings),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise FirnError(f"airflow: no database: {done.stderr[-800:]}", f"remove {folder} and run again")
    stamp.write_text(wanted)


def _spark_defaults(settings: Settings) -> str:
    """What spark-submit needs on this machine and no cluster should get; so it is not in the DAGs."""
    values = {
        "spark.driver.extraClassPath": f"{settings.state_dir / 'jars' / 'lake'}/*",
        "spark.driver.memory": settings.spark.driver_memory,
        "spark.ui.enabled": "false",
    }
    if _is_local(settings):
        values |= {"spark.driver.bindAddress": LOOPBACK, "spark.driver.host": LOOPBACK}
    return "".join(f"{key} {value}\n" for key, value in values.items())


class DagRunner:
    """Runs DAGs to their end in one process of its own: 10 s for the first, then under a second beside the job itself.

    The runs are of type manual and land in the database that the UI reads. Nothing of `up` has to be running.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say

    def __enter__(self) -> "DagRunner":
        prepare(self._settings, self._say)
        self._log = processes.log_path(self._settings.state_dir, "airflow-dagruns")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "ops.dagruns"],
                env=os.environ | environment(self._settings),
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.close()
        if kind is not None:
            self._child.terminate()
        self._child.wait()
        self._child.stdout.close()

    def run(self, dag_id: str, at: datetime, conf: Mapping[str, Any] | None = None) -> Run:
        """Raises RefusedError for an unknown DAG or params it does not accept; a failed job is a state, not an error.

        The job's `now` is the last end of an interval of the DAG at or before `at`: midnight (UTC), or 23:30 of the day
        before for `fold`. The same `at` again replaces the run.
        """
        assert self._child.stdin
        assert self._child.stdout
        request = {"dag_id": dag_id, "at": at.isoformat(), "conf": dict(conf or {})}
        try:
            print(json.dumps(request), file=self._child.stdin, flush=True)
        except BrokenPipeError:
            raise self._died(dag_id) from None
        answer = json.loads(self._child.stdout.readline() or "null")
        if answer is None:
            raise self._died(dag_id)
        if "refused" in answer:
            raise RefusedError(f"DAG {dag_id}: {answer['refused']}", "correct the DAG's name or its params")
        self._say(f"airflow: {dag_id} {answer['run_id']}: {answer['state']}")
        return Run(dag_id, answer["run_id"], answer["state"], Path(answer["log"]))

    def _died(self, dag_id: str) -> FirnError:
        return FirnError(f"the process that ran DAG {dag_id} ended early", f"see the end of {self._log}")


def run_dags(
    settings: Settings, wanted: Iterable[tuple[str, datetime, Mapping[str, Any] | None]], say: Say
) -> list[Run]:
    """One after the other, each (dag id, at, conf), whatever became of the one before."""
    with DagRunner(settings, say) as runner:
        return [runner.run(dag_id, at, conf) for dag_id, at, conf in wanted]


def run_dag(settings: Settings, dag_id: str, at: datetime, conf: Mapping[str, Any] | None, say: Say) -> str:
    """The state of the run: `success` or `failed`."""
    return run_dags(settings, [(dag_id, at, conf)], say)[0].state


def up(settings: Settings, say: Say) -> str:
    """Starts what does not run yet and returns the address of the UI, which asks for no password.

    Raises BlockedError when the port is taken, or one dies or is not well in time; then all are stopped again.
    """
    prepare(settings, say)
    chosen = ports.choose(settings.state_dir, [PORT], {})
    stopped = [name for name in COMPONENTS if not _alive(settings, name)]
    if "api-server" in stopped:
        ports.require_free(settings.state_dir, chosen)
    if stopped:
        say("airflow: starting " + ", ".join(stopped))
    environ = environment(settings)
    for name in stopped:
        _start(settings, name, environ)
    try:
        _await_health(settings)
    except BlockedError:
        down(settings, say)
        raise
    say(f"airflow: {environ['AIRFLOW__API__BASE_URL']}")
    return environ["AIRFLOW__API__BASE_URL"]


def down(settings: Settings, say: Say) -> None:
    """Stops the four processes; a task in flight has 20 seconds to end."""
    state_dir = settings.state_dir
    found = {_called(name): processes.read_record(state_dir, _called(name)) for name in COMPONENTS}
    alive = {name: record for name, record in found.items() if record and record.alive}
    families = [psutil.Process(record.pid).children(recursive=True) for record in alive.values() if record.alive]
    killed = processes.stop({name: (record, STOP_SECONDS) for name, record in alive.items()})
    for orphan in (child for family in families for child in family):
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil tells a later process of the same pid from this one
            orphan.kill()
    processes.forget(state_dir, found)
    say(f"airflow: stopped {len(alive)} processes" + (f", killed {', '.join(killed)}" if killed else ""))


def status(settings: Settings) -> dict[str, str]:
    """Each process as `healthy`, `starting` or `stopped`."""
    healthy = _healthy(settings)
    return {
        name: "stopped" if not _alive(settings, name) else "healthy" if name in healthy else "starting"
        for name in COMPONENTS
    }


def _called(name: str) -> str:
    return f"airflow-{name}"


def _alive(settings: Settings, name: str) -> bool:
    record = processes.read_record(settings.state_dir, _called(name))
    return record is not None and record.alive


def _start(settings: Settings, name: str, environ: Mapping[str, str]) -> None:
    argv = (sys.executable, "-m", "airflow", name, *COMPONENTS[name])
    child = Child(_called(name), argv, env=environ, cwd=str(REPOSITORY))
    started = processes.spawn(child, processes.log_path(settings.state_dir, child.name))
    processes.write_record(settings.state_dir, child.name, processes.record_of(started.pid))


def _await_health(settings: Settings) -> None:
    deadline = time.monotonic() + START_SECONDS
    while late := COMPONENTS.keys() - _healthy(settings):
        dead = {name for name in COMPONENTS if not _alive(settings, name)}
        if dead or time.monotonic() > deadline:
            name = min(dead or late)
            log = processes.log_path(settings.state_dir, _called(name))
            raise BlockedError(f"airflow: {name} did not come up", f"see the end of {log}, then run it again")
        time.sleep(0.5)


def _healthy(settings: Settings) -> set[str]:
    """Which of the four are well, by what the API server says; none while it does not answer."""
    port = ports.remembered(settings.state_dir).get(PORT)
    if port is None:
        return set()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{LOOPBACK}:{port}/api/v2/monitor/health", timeout=5) as answer:
            report = json.load(answer)
    except (OSError, ValueError):
        return set()
    return {"api-server"} | {name for name in COMPONENTS if _state(report, name) == "healthy"}


def _state(report: Mapping[str, Any], name: str) -> str:
    return str(report.get(name.replace("-", "_"), {}).get("status"))
