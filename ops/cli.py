"""`firn`: one command line for people and for scripts. `python -m ops.cli`, or `./firn`.

Results go to stdout, as one JSON document with --json; progress, logs and errors go to stderr. Exit codes: 0 done,
2 refused (the request is wrong), 3 blocked (right request, wrong moment), 4 damaged, 5 outcome unknown, 130 Ctrl-C.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.errors import FirnError
from core.settings import SETTINGS_VARIABLE
from ops.commands.chaos import chaos_app
from ops.commands.demo import demo_app
from ops.commands.explain import explain_app
from ops.commands.frozen import frozen_app
from ops.commands.imports import imports_app
from ops.commands.lake import lake_app
from ops.commands.messages import messages_app
from ops.commands.options import group
from ops.commands.project import project_app
from ops.commands.stack import airflow_app, settings_app, stack_app
from ops.commands.thaw import thaw_app
from ops.commands.tiers import tiers_app
from ops.commands.watch import watch_app
from serving import logs

SUMMARY = """firn keeps a chat system's messages: hot, warm, cold, frozen, and nothing is lost.

\b
Exit codes: 0 done, 2 refused (the request is wrong), 3 blocked (not now; the
same command later goes on), 4 damaged, 5 outcome unknown, 130 Ctrl-C."""

app = group(
    "firn",
    SUMMARY,
    "demo",
    "stack up",
    "status",
    "plan --json",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (
    demo_app,
    tiers_app,
    explain_app,
    imports_app,
    lake_app,
    frozen_app,
    thaw_app,
    watch_app,
    messages_app,
    settings_app,
    chaos_app,
    project_app,
):
    app.add_typer(commands)
app.add_typer(stack_app)
app.add_typer(airflow_app)


@app.callback()
def firn(
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The settings file. Default: $FIRN_SETTINGS, else firn.toml.", dir_okay=False
        ),
    ] = None,
) -> None:
    if settings is not None:
        os.environ[SETTINGS_VARIABLE] = str(settings.absolute())  # for what is started from here, too


def main(argv: Sequence[str]) -> int:
    """The exit code. Errors that a person can meet are one line and what to do; anything else is a fault of ours."""
    logs.configure()
    # The driver's remarks on connections are not for here; what matters comes back as an error.
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)
    try:
        app(list(argv), prog_name="firn")
    except FirnError as fault:
        print(f"firn: {fault}", file=sys.stderr, flush=True)
        if "--json" in argv:
            print(json.dumps(fault.as_data()), flush=True)
        return fault.exit_code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
