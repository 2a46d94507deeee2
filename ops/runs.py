"""Jobs and tools as child processes: their lines live, their result and exit code handed on."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import errors
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError
from core.settings import SETTINGS_VARIABLE, Settings
from ops.airflow import SPARK_LOGGING
from ops.java import find_java

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("sealed", "copied", "verified", "switched")
_STEP = re.compile(rf"(\S+/\d{{4}}-W\d\d/\d+): ({'|'.join(STEPS)}) ")
_ERRORS = {one.__name__: one for one in (FirnError, RefusedError, BlockedError, DamagedError, OutcomeUnknownError)}
# The job's own last words on an error come back as that error; Java's announcements help nobody.
_ENDING = re.compile(rf"({'|'.join(_ERRORS)}|MissingTableError): |  do: ")
_NOISE = re.compile(r"WARNING: |WARN |Using Spark's default log4j|Setting default log level|To adjust logging level")
_STOP_SECONDS = 20.0


def run_job(settings: Settings, job: str, arguments: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """What `python -m jobs.<job>` reports; raises the error that it ended with, or one that has its exit code."""
    argv = [sys.executable, "-P", "-m", f"jobs.{job}", *arguments]
    environ = os.environ | job_environment(settings)
    # A file, not a second pipe: a long report would fill a pipe that nobody reads yet.
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(argv, env=environ, stdout=output, stderr=subprocess.PIPE, text=True) as child,
    ):
        assert child.stderr
        try:
            for line in child.stderr:
                if not _ENDING.match(line) and not _NOISE.match(line):
                    say(line.rstrip("\n"))
            code = child.wait()
        except KeyboardInterrupt:
            end(child)
            raise
        output.seek(0)
        return result_of(job, code, output.read().splitlines())


def result_of(job: str, code: int, printed: Sequence[str]) -> dict[str, Any]:
    last = json.loads(printed[-1]) if printed and printed[-1].startswith("{") else None
    if last and code == 0:
        return dict(last)
    if last and "error" in last:
        kind = _ERRORS.get(last["error"]) or _by_code(code)
        raise kind(last["what"], last["do"])
    fault = FirnError(f"jobs.{job} ended with exit code {code}", "see what it said above")
    fault.exit_code = code or errors.FirnError.exit_code
    raise fault


def _by_code(code: int) -> type[FirnError]:
    return next((kind for kind in _ERRORS.values() if kind.exit_code == code), FirnError)


def job_environment(settings: Settings) -> dict[str, str]:
    """So that the child, and the Python workers that Spark starts from it, run in any directory as they would here."""
    conf = settings.state_dir / "run" / "spark"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "log4j2.properties").write_text(SPARK_LOGGING)
    found = {
        "JAVA_HOME": str(find_java(settings.state_dir, os.environ).home),
        "SPARK_CONF_DIR": str(conf),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
    }
    if path := os.environ.get(SETTINGS_VARIABLE):
        found[SETTINGS_VARIABLE] = os.path.abspath(path)
    return found


def run_tool(argv: Sequence[str], environ: Mapping[str, str] = os.environ, *, quiet: bool = False) -> int:
    """In the repository; its output goes to ours, or with `quiet` all of it to stderr. The exit code."""
    output = sys.stderr if quiet else None
    with subprocess.Popen([sys.executable, "-m", *argv], env=dict(environ), cwd=ROOT, stdout=output) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            end(child)
            raise


def end(child: subprocess.Popen[Any]) -> None:
    """The terminal has told the child as well; it gets a moment to give up its leases."""
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class Steps:
    """Reads from a mover's lines how far it is: each unit it names has four steps before it."""

    def __init__(self) -> None:
        self._units: dict[str, int] = {}

    def hear(self, line: str) -> tuple[int, int] | None:
        """Steps done of all, when the line tells of one."""
        found = _STEP.match(line)
        if found is None:
            return None
        self._units[found[1]] = STEPS.index(found[2]) + 1
        return sum(self._units.values()), len(STEPS) * len(self._units)
