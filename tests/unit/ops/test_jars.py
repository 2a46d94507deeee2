import hashlib
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from core.errors import BlockedError, DamagedError, RefusedError
from ops import jars
from ops.java import Java

NO_JAVA = Java(Path("/nonexistent"), 17)


@pytest.mark.parametrize("component", jars.COMPONENTS)
def test_every_listed_jar_has_a_checksum_and_none_comes_by_itself(component: str) -> None:
    root = ElementTree.parse(Path(jars.__file__).parent / "ivy" / f"{component}.xml").getroot()
    dependencies = root.findall("dependencies/dependency")
    names = [name for dependency in dependencies for name in jars.file_names(dependency)]
    assert sorted(names) == sorted(jars.expected(component))
    assert all(dependency.get("transitive") == "false" for dependency in dependencies)


def test_no_list_names_a_host() -> None:
    texts = [path.read_text() for path in (Path(jars.__file__).parent / "ivy").iterdir()]
    urls = [word for text in texts for word in text.split() if "://" in word]
    assert all("ant.apache.org/ivy/maven" in url for url in urls)


def test_only_what_is_missing_is_asked_for() -> None:
    text = (Path(jars.__file__).parent / "ivy" / "cassandra.xml").read_text()
    narrow = ElementTree.fromstring(jars.narrowed(text, ["jffi-1.3.11-native.jar"]))
    assert [one.get("name") for one in narrow.iter("dependency")] == ["jffi"]


def test_an_unknown_component_is_refused() -> None:
    with pytest.raises(RefusedError, match="lake"):
        jars.expected("spark")


@pytest.fixture
def two_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of two, both fetched."""
    lists, state = tmp_path / "ivy", tmp_path / "state"
    target = jars.directory(state, "kafka")
    target.mkdir(parents=True)
    lists.mkdir()
    for name in ("a-1.jar", "b-2.jar"):
        (target / name).write_text(name)
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a-1.jar", "b-2.jar")]
    (lists / "kafka.sha256").write_text("".join(lines))
    shutil.copy(Path(jars.__file__).parent / "ivy" / "kafka.xml", lists)
    monkeypatch.setattr(jars, "_IVY", lists)
    return state


def test_what_is_there_and_right_starts_no_java(two_jars: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        assert jars.fetch("kafka", two_jars, NO_JAVA, said.append) == jars.directory(two_jars, "kafka")
    assert said == []


def test_a_damaged_jar_is_named_and_removed(two_jars: Path) -> None:
    jars.fetch("kafka", two_jars, NO_JAVA, print)
    damaged = jars.directory(two_jars, "kafka") / "b-2.jar"
    damaged.write_text("b-3.jar")
    with pytest.raises(DamagedError, match=r"b-2\.jar"):
        jars.fetch("kafka", two_jars, NO_JAVA, print)
    assert not damaged.exists()
    assert (damaged.parent / "a-1.jar").exists()


def test_a_jar_that_is_not_listed_does_not_stay_on_the_class_path(two_jars: Path) -> None:
    stray = jars.directory(two_jars, "kafka") / "a-0.jar"
    stray.write_text("an older one")
    jars.fetch("kafka", two_jars, NO_JAVA, print)
    assert not stray.exists()


def test_a_failed_download_names_the_jar_and_keeps_the_others(two_jars: Path, tmp_path: Path) -> None:
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\necho '[FAILED     ] no route'\nexit 1\n")
    (home / "bin" / "java").chmod(0o755)
    (jars.directory(two_jars, "kafka") / "b-2.jar").unlink()
    with pytest.raises(BlockedError, match=r"1 of 1 jars could not be downloaded: b-2\.jar.*no route") as caught:
        jars.fetch("kafka", two_jars, Java(home, 17), lambda _: None)
    assert "again" in caught.value.do
    assert (jars.directory(two_jars, "kafka") / "a-1.jar").exists()
