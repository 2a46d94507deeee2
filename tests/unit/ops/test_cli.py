"""The command line itself: help, examples, exit codes, one JSON document. No socket is opened."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError
from core.settings import Settings
from ops import processes, regions, stack
from ops.cli import app, main
from ops.commands import options

COMMAND = Any  # typer ships its own copy of click, whose classes have no public name
ROOT: COMMAND = typer.main.get_command(app)


def walk(command: COMMAND, path: tuple[str, ...]) -> Iterator[tuple[str, COMMAND]]:
    yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


ALL = dict(walk(ROOT, ()))
LEAVES = {path: command for path, command in ALL.items() if not hasattr(command, "commands")}


def examples(command: COMMAND) -> list[str]:
    return re.findall(r"^ +\./firn ?(.*)$", command.epilog or "", re.MULTILINE)


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FIRN_")]:
        monkeypatch.delenv(name)
    (tmp_path / "firn.toml").write_text('regions = ["us", "eu"]\n')
    monkeypatch.setenv("FIRN_SETTINGS", str(tmp_path / "firn.toml"))


def test_the_tree_was_walked() -> None:
    assert {"stack up", "status", "read", "airflow down", "check"} <= LEAVES.keys()


@pytest.mark.parametrize("path", ALL)
def test_help_has_examples(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"./firn {path}".rstrip() in shown


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_has_json(path: str) -> None:
    assert "--json" in {name for parameter in LEAVES[path].params for name in parameter.opts}


@pytest.mark.parametrize("example", sorted({example for command in ALL.values() for example in examples(command)}))
def test_examples_parse_to_a_command_that_is_there(example: str) -> None:
    context, command, words = None, ROOT, shlex.split(example)
    while hasattr(command, "commands"):
        context = command.make_context(command.name, words, parent=context)
        words = [*context._protected_args, *context.args]
        if not words:
            assert command.invoke_without_command, example
            return
        _, command, words = command.resolve_command(context, words)
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("kind", [FirnError, RefusedError, BlockedError, DamagedError, OutcomeUnknownError])
def test_an_error_is_a_line_and_what_to_do_with_its_own_code(
    kind: type[FirnError], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Settings) -> None:
        raise kind("it is so", "do this")

    monkeypatch.setattr(stack, "status", fail)
    assert main(["stack", "status"]) == kind.exit_code
    assert capsys.readouterr() == ("", "firn: it is so\n  do: do this\n")
    assert main(["stack", "status", "--json"]) == kind.exit_code
    assert json.loads(capsys.readouterr().out) == {"error": kind.__name__, "what": "it is so", "do": "do this"}


def test_control_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stack, "status", interrupt)
    assert main(["stack", "status"]) == 130


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-command"],
        ["status", "--now", "2026-03-02T00:00:00"],
        ["move", "--week", "2026-W99"],
        ["read", "not-a-uuid"],
        ["read", "0f0e0d0c-0b0a-8908-8706-050403020100", "--before", "0f0e0d0c-0b0a-8908-8706-050403020100"],
    ],
)
def test_a_wrong_request_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Error: " in shown.err


def test_an_unknown_region_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--region", "mars"]) == 2
    assert "region 'mars' is not one of us, eu" in capsys.readouterr().err


def test_without_services_it_says_how_to_start_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 3
    assert "./firn stack up" in capsys.readouterr().err
    assert main(["status", "--json"]) == 3
    shown = json.loads(capsys.readouterr().out)["regions"]
    assert {one["error"] for one in shown.values()} == {"BlockedError"}


def test_a_message_id_is_taken_in_both_forms() -> None:
    ordered = "1f1053f7-5a4a-6900-9167-083313651d15"
    timeuuid = "75a4a900-053f-11f1-9167-083313651d15"
    assert options.message_id(ordered) == options.message_id(timeuuid)


def test_settings_never_show_a_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRN_OBJECTS__SECRET_KEY", "hunter2")
    for words in (["settings"], ["settings", "--json"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "hunter2" not in shown
        assert "***" in shown
    assert json.loads(shown)["state_dir"] == str(tmp_path / ".firn")


def test_a_settings_file_is_named_before_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.toml").write_text('regions = ["moon"]\n')
    assert main(["--settings", str(tmp_path / "other.toml"), "settings", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["regions"] == ["moon"]


def test_stack_up_makes_regions_ready_also_where_all_runs_already(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[tuple[str, ...]] = []
    monkeypatch.setattr(stack, "up", lambda config, *_, **__: config)
    monkeypatch.setattr(regions, "prepare_all", lambda config: ready.append(config.regions))
    assert main(["stack", "up", "--json"]) == 0
    assert ready == [("us", "eu")]
    shown = capsys.readouterr()
    assert {one["name"] for one in json.loads(shown.out)["components"]} >= {"cassandra", "consumer-us"}
    assert "making the regions ready: us, eu" in shown.err


def test_stack_status_is_3_while_it_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "status"]) == 3
    assert "stopped" in capsys.readouterr().out


def test_wipe_tells_first_takes_airflow_along_and_waits_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / ".firn"
    for name in ("data/x", "airflow/airflow.db", "jars/kept.jar", "secrets/kept"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("x" * 1024)
    assert main(["stack", "wipe"]) == 0
    shown = capsys.readouterr().out
    assert f"would be deleted: {state / 'airflow'}" in shown
    assert "--apply" in shown
    processes.write_record(state, "airflow-scheduler", processes.record_of(os.getpid()))
    assert main(["stack", "wipe", "--apply"]) == 3
    assert "./firn airflow down" in capsys.readouterr().err
    assert (state / "airflow" / "airflow.db").exists()
    processes.forget(state, ["airflow-scheduler"])
    assert main(["stack", "wipe", "--apply", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["applied"]
    assert told["size_bytes"] >= 2048
    assert not (state / "airflow").exists()
    assert (state / "jars" / "kept.jar").exists()
    assert (state / "secrets" / "kept").exists()
