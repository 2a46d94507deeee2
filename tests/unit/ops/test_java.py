import subprocess
from pathlib import Path

import pytest

from ops import java
from ops.java import find_java, parse_properties

SHOWN = """Property settings:
    java.home = /opt/jdk
    java.specification.version = {}
openjdk version "x"
"""


@pytest.mark.parametrize(("version", "major"), [("17", 17), ("21", 21), ("1.8", 8)])
def test_home_and_version_are_what_java_says_of_itself(version: str, major: int) -> None:
    assert parse_properties(SHOWN.format(version)) == ("/opt/jdk", major)


def test_what_is_no_java_has_no_version() -> None:
    assert parse_properties("command not found") is None


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def fake_java(home: Path, version: str) -> Path:
    return script(home / "bin" / "java", f"cat >&2 <<'X'\n{SHOWN.format(version).replace('/opt/jdk', str(home))}X")


def test_java_home_wins_over_the_path(tmp_path: Path) -> None:
    fake_java(tmp_path / "a", "21")
    fake_java(tmp_path / "b", "17")
    found = find_java(tmp_path, {"JAVA_HOME": str(tmp_path / "a"), "PATH": f"{tmp_path / 'b' / 'bin'}:/bin"})
    assert (found.home, found.major, found.bundled) == (tmp_path / "a", 21, False)


def test_a_java_of_another_version_is_passed_over(tmp_path: Path) -> None:
    fake_java(tmp_path / "a", "25")
    fake_java(tmp_path / "b", "17")
    found = find_java(tmp_path, {"JAVA_HOME": str(tmp_path / "a"), "PATH": f"{tmp_path / 'b' / 'bin'}:/bin"})
    assert found.home == tmp_path / "b"


def test_the_bundled_one_serves_where_there_is_none(tmp_path: Path) -> None:
    found = find_java(tmp_path, {"PATH": str(tmp_path)})
    assert found.bundled
    assert found.major in java.MAJORS
    # Spark's own flag, which the runtime behind the shim would refuse to boot with.
    command = [found.command, "--add-modules=jdk.incubator.vector", "-version"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_shim_keeps_every_other_argument(tmp_path: Path) -> None:
    real = script(tmp_path / "real java" / "java", 'printf "%s|" "$@"')
    shim = tmp_path / "jre" / "bin" / "java"
    java._write_shim(shim, real)
    arguments = ["-cp", "a b", "", "--add-modules=jdk.incubator.vector", "$HOME", "it's"]
    said = subprocess.run([shim, *arguments], capture_output=True, text=True, check=True).stdout
    assert said == "-cp|a b||$HOME|it's|"
