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

from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError
from core.settings import SETTINGS_VARIABLE, Settings
from ops.airflow import SPARK_LOGGING
from ops.java import find_java

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"judge": "quality.run"}  # every other job is the module of its name in `jobs`
STEPS = ("sealed", "copied", "verified", "switched")
FOLD_STEPS = ("rewritten", "written", "folded")  # the first is Spark's, for all units at once
_STAGE = re.compile(r"\[Stage \d+:.*\((\d+) \+ \d+\) / (\d+)\]")
_STEP = re.compile(rf"(\S+/\d{{4}}-W\d\d/\d+): (?:[\d,]+ files of [\d,]+ rows )?({'|'.join(STEPS + FOLD_STEPS)})\b")
_ROWS = re.compile(r"(read|placed) ([\d,]+) of ~?([\d,]+) rows")
_ERRORS = {one.__name__: one for one in (FirnError, RefusedError, BlockedError, DamagedError, OutcomeUnknownError)}
# The job's own last words on an error come back as that error; Java's announcements help nobody.
_ENDING = re.compile(rf"({'|'.join(_ERRORS)}|MissingTableError): |  do: ")
_NOISE = re.compile(r"\s*$|WARNING: |WARN |Using Spark's default log4j|Setting default log|To adjust logging")
_STOP_SECONDS = 20.0
_SIGNALLED = 128  # plus the signal: what a shell would say


def run_job(settings: Settings, job: str, arguments: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """What `python -m jobs.<job>` reports; raises the error that it ended with, or one that has its exit code."""
    argv = [sys.executable, "-P", "-m", MODULES.get(job, f"jobs.{job}"), *arguments]
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
    how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    fault = FirnError(f"the job {job} ended with {how}", "see what it said above; run the same command again")
    fault.exit_code = _SIGNALLED - code if code < 0 else code or FirnError.exit_code
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
    """Reads from a job's lines how far it is: each unit that a mover names has four steps, Spark counts its tasks, an
    import reads all rows and then places them. A fold names its units only when Spark is done with all of them."""

    def __init__(self, job: str = "move") -> None:
        self._steps = FOLD_STEPS if job == "fold" else STEPS
        self._units: dict[str, int] = {}
        self._tasks = (0, 1)

    def hear(self, line: str) -> tuple[float, float] | None:
        """Done of all, when the line tells of it."""
        if (found := _STEP.match(line)) and found[2] in self._steps:
            self._units[found[1]], self._tasks = self._steps.index(found[2]) + 1, (0, 1)
        elif found := _STAGE.search(line):
            self._tasks = int(found[1]), int(found[2])
        elif found := _ROWS.match(line):
            done, total = (int(number.replace(",", "")) for number in found.group(2, 3))
            return done + (total if found[1] == "placed" else 0), 2 * total
        else:
            return None
        if not self._units:
            return self._tasks[0], self._tasks[1] * (len(FOLD_STEPS) if self._steps is FOLD_STEPS else 1)
        step = len(self._units) * self._tasks[0] / self._tasks[1]
        total = len(self._steps) * len(self._units)
        return min(total, sum(self._units.values()) + step), total


def is_stage(line: str) -> bool:
    """A line of Spark's own progress bar."""
    return bool(_STAGE.search(line))
