"""Airflow reads its environment when it is first imported: so it is set here, with a state directory of its own."""

import os
import tempfile
from pathlib import Path

import pytest

from core.settings import parse
from ops.airflow import environment

STATE = tempfile.TemporaryDirectory(prefix="firn-dags-")
# Only Airflow's own variables: the rest would change what other tests of the same run see.
os.environ |= {
    name: value for name, value in environment(parse({"state_dir": STATE.name})).items() if name.startswith("AIRFLOW")
}
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def bag() -> object:
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 (not before the environment is set)

    return DagBag(dag_folder=str(REPOSITORY / "dags"), bundle_name="dags-folder")
