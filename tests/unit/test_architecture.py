"""The house keeps its order: who may import whom, how long things get, and that importing opens nothing.

Each rule is a function from source text to findings, so that it can be shown a bad text and must find it.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import pytest

ROOT = Path(__file__).resolve().parents[2]
BELOW = {
    "schemas": set[str](),
    "core": {"schemas"},
    "stores": {"core", "schemas"},
    "lakehouse": {"stores", "core", "schemas"},
    "jobs": {"lakehouse", "stores", "core", "schemas"},
    "serving": {"lakehouse", "stores", "core", "schemas"},
    "quality": {"lakehouse", "stores", "core", "schemas"},
    "ops": {"jobs", "serving", "quality", "lakehouse", "stores", "core", "schemas"},
    "bench": {"ops", "jobs", "serving", "quality", "lakehouse", "stores", "core", "schemas"},
    "dags": set[str](),  # wiring and docs: they name jobs as text
}
OURS = BELOW.keys()
# Where an SDK may be imported at all; None beside a name: any file of that package.
SDK_HOMES = {
    "boto3": {"stores/s3.py"},
    "botocore": {"stores/s3.py"},
    "cassandra": {
        "stores/cassandra.py",
        "stores/pages.py",
        "stores/requests.py",
        "bench/pages.py",
        "bench/decode.py",
        "bench/copy.py",
    },
    "confluent_kafka": {"stores/kafka.py", "stores/topics.py"},
    "redis": {"stores/redis.py"},
    # the simulation for its errors alone, the readers to have the same rows from engines that are not ours
    "deltalake": {"lakehouse/commit.py", "bench/simulation/bucket.py", "bench/readers.py"},
    "duckdb": {"lakehouse/analytics.py", "bench/readers.py"},
    "thrift": {"lakehouse/footer.py"},  # no network in it; but one place knows how footers are encoded
    "numba": {"core/compiled.py"},
    "airflow": {"dags/*.py", "ops/dagruns.py"},
    "great_expectations": {"quality/suites.py"},
}
SPARK_HOME = "lakehouse/session.py"
REAL_TIME = {
    "stores/leases.py": "a lease is a promise about processes, so its time is real",
    "stores/memory.py": "the default clock of a bucket in memory, as a store's own clock",
    "stores/directory.py": "the default clock of a bucket in a directory, as a store's own clock",
}
COMMAND_LINE = "ops"
LATE = ("ops/cli*.py", "ops/commands/*.py")  # a command that needs Spark must not slow down one that does not
VAGUE = ("util", "helper", "common", "manager", "misc")
MEDIAN, P90, P99, MODULE = 9, 30, 60, 400


@dataclass(frozen=True)
class Source:
    """A module by its path below the root."""

    path: str
    text: str

    @property
    def package(self) -> str:
        return self.path.split("/", maxsplit=1)[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


SOURCES = [
    Source(str(path.relative_to(ROOT)), path.read_text())
    for package in sorted(OURS)
    for path in sorted((ROOT / package).rglob("*.py"))
]


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, "." * node.level + (node.module or "")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def upward(source: Source) -> Iterator[str]:
    allowed = BELOW[source.package] | {source.package}
    for node, name in imports(source.tree):
        if name.startswith("."):
            yield f"{source.path}:{node.lineno} a relative import"
        elif top(name) in (*OURS, "tests", "bench") and top(name) not in allowed:
            yield f"{source.path}:{node.lineno} imports {name}"


def strangers(source: Source) -> Iterator[str]:
    """Imports of an SDK outside of its home."""
    for node, name in imports(source.tree):
        homes = SDK_HOMES.get(top(name))
        if homes and not any(Path(source.path).match(home) for home in homes):
            yield f"{source.path}:{node.lineno} imports {name}"
        if top(name) == "pyspark" and source.path != SPARK_HOME:
            is_type = isinstance(node, ast.ImportFrom) and {a.name for a in node.names} <= {"SparkSession", "DataFrame"}
            if source.package not in ("jobs", "lakehouse", "ops") or not is_type:
                yield f"{source.path}:{node.lineno} imports {name}"


def late(source: Source) -> Iterator[str]:
    """Own imports inside functions: what a cycle looks like once it has been papered over."""
    if any(Path(source.path).match(commands) for commands in LATE):
        return
    for function in functions(source.tree):
        for node, name in imports(function):
            if top(name) in OURS:
                yield f"{source.path}:{node.lineno} imports {name} in {function.name}"


def untyped(source: Source) -> Iterator[str]:
    for function in functions(source.tree):
        a = function.args
        named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(extra for extra in (a.vararg, a.kwarg) if extra)]
        bare = [arg.arg for arg in named if arg.annotation is None and arg.arg not in ("self", "cls")]
        if bare or function.returns is None:
            yield f"{source.path}:{function.lineno} {function.name}: {', '.join(bare) or 'its result'}"


_CLOCKS = re.compile(r"\b(datetime\.now|datetime\.utcnow|datetime\.today|date\.today|time\.time|time\.time_ns|"
                     r"time\.localtime|time\.gmtime|time\.strftime)$")  # fmt: skip


def clocks(source: Source) -> Iterator[str]:
    """Wall clocks below the command line; monotonic ones measure waiting and are fine."""
    if source.package == COMMAND_LINE or source.path in REAL_TIME:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _CLOCKS.search(ast.unparse(node)):
            yield f"{source.path}:{node.lineno} {ast.unparse(node)}"
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and {a.name for a in node.names} & {"time", "time_ns"}
        ):
            yield f"{source.path}:{node.lineno} from time import time"


def swallowed(source: Source) -> Iterator[str]:
    """Handlers that catch everything."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            kind = ast.unparse(node.type) if node.type else "everything"
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if kind in ("everything", "Exception", "BaseException") and not raises:
                yield f"{source.path}:{node.lineno} catches {kind}"


def unfinished(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b|\braise NotImplementedError\b", line):
            yield f"{source.path}:{number} {line.strip()}"


def vague(source: Source) -> Iterator[str]:
    if any(word in Path(source.path).stem.lower() for word in VAGUE):
        yield source.path


def long_module(source: Source) -> Iterator[str]:
    if (lines := len(source.text.splitlines())) > MODULE:
        yield f"{source.path} has {lines} lines"


def undescribed(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield f"{source.path} has no docstring"


RULES: list[Callable[[Source], Iterator[str]]] = [
    upward, strangers, late, untyped, clocks, swallowed, unfinished, vague, long_module, undescribed,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Callable[[Source], Iterator[str]]) -> None:
    assert [finding for source in SOURCES for finding in rule(source)] == []


BAD = [
    (upward, "core/x.py", "from stores import s3"),
    (upward, "core/x.py", "import stores.s3"),
    (upward, "stores/x.py", "def f() -> None:\n    from lakehouse.site import Site"),
    (upward, "jobs/x.py", "from serving.intake import Intake"),
    (upward, "serving/x.py", "import jobs.move"),
    (upward, "ops/x.py", "import dags"),
    (upward, "dags/x.py", "from jobs.move import run"),
    (upward, "schemas/x.py", "from core import ids"),
    (upward, "core/x.py", "from . import ids"),
    (upward, "core/x.py", "from tests import strategies"),
    (upward, "jobs/x.py", "from bench.simulation import world"),
    (upward, "ops/x.py", "from bench import decode"),
    (strangers, "stores/x.py", "import boto3"),
    (strangers, "stores/s4.py", "from botocore.config import Config"),
    (strangers, "lakehouse/x.py", "from cassandra.cluster import Session"),
    (strangers, "serving/x.py", "from confluent_kafka import Producer"),
    (strangers, "lakehouse/reader.py", "from deltalake import DeltaTable"),
    (strangers, "stores/x.py", "from pyspark.sql import SparkSession"),
    (strangers, "jobs/x.py", "from pyspark.sql import functions as F"),
    (strangers, "jobs/x.py", "import pyspark"),
    (strangers, "core/x.py", "import airflow"),
    (strangers, "quality/run.py", "import great_expectations.expectations as gxe"),
    (upward, "quality/x.py", "from jobs import shell"),
    (late, "jobs/x.py", "def f() -> None:\n    from core import ids"),
    (late, "jobs/x.py", "class A:\n    def f(self) -> None:\n        import stores.kafka"),
    (untyped, "core/x.py", "def f(a) -> None: ..."),
    (untyped, "core/x.py", "def f(a: int): ..."),
    (untyped, "core/x.py", "class A:\n    def f(self, *rest) -> None: ..."),
    (untyped, "core/x.py", "async def f(*, a) -> None: ..."),
    (clocks, "jobs/x.py", "from datetime import datetime\nnow = datetime.now()"),
    (clocks, "core/x.py", "import datetime\nf = datetime.datetime.utcnow"),
    (clocks, "lakehouse/x.py", "import time\nnow = time.time()"),
    (clocks, "stores/x.py", "from time import time"),
    (swallowed, "jobs/x.py", "try:\n    f()\nexcept Exception:\n    pass"),
    (swallowed, "jobs/x.py", "try:\n    f()\nexcept:\n    log()"),
    (unfinished, "jobs/x.py", "x = 1  # TODO later"),
    (unfinished, "jobs/x.py", "raise NotImplementedError"),
    (vague, "core/utils.py", ""),
    (vague, "stores/kafka_helpers.py", ""),
    (vague, "jobs/common.py", ""),
    (vague, "serving/manager.py", ""),
    (long_module, "core/x.py", "\n" * (MODULE + 1)),
    (undescribed, "core/x.py", "x = 1"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_a_bad_text_is_found(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


GOOD = [
    (upward, "jobs/x.py", "from jobs import shell\nfrom stores.kafka import poll\nimport json"),
    (strangers, "jobs/x.py", "from pyspark.sql import DataFrame, SparkSession"),
    (strangers, "stores/s3.py", "import boto3"),
    (late, "ops/cli.py", "def f() -> None:\n    from jobs import move"),
    (late, "jobs/x.py", "def f() -> None:\n    import json"),
    (clocks, "jobs/x.py", "import time\nnow = time.monotonic()"),
    (clocks, "ops/x.py", "from datetime import datetime\nnow = datetime.now()"),
    (swallowed, "jobs/x.py", "try:\n    f()\nexcept Exception:\n    undo()\n    raise"),
]


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_a_good_text_is_let_be(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_an_exception_has_a_reader() -> None:
    """An exception that nobody needs any more goes."""
    paths = {source.path for source in SOURCES}
    assert REAL_TIME.keys() <= paths
    assert all(reason for reason in REAL_TIME.values())


# Sizes


def lengths(sources: list[Source]) -> dict[str, int]:
    """Lines of each function, from `def` to its end."""
    return {
        f"{source.path}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for source in sources
        for function in functions(source.tree)
    }


def band(found: list[int]) -> tuple[float, float, float]:
    hundredths = quantiles(found, n=100, method="inclusive")
    return hundredths[49], hundredths[89], hundredths[98]


def test_functions_are_short() -> None:
    found = lengths(SOURCES)
    median, p90, p99 = band(list(found.values()))
    longest = sorted(found.items(), key=lambda item: -item[1])[:5]
    assert (median <= MEDIAN, p90 <= P90, p99 <= P99) == (True, True, True), (median, p90, p99, longest)
    assert [name for name, lines in found.items() if lines > P99] == []


def test_long_functions_are_found() -> None:
    text = "\n".join(f"def f{n}() -> None:\n" + "    x = 1\n" * n for n in (61, *range(30, 60)))
    found = lengths([Source("core/x.py", text)])
    assert found["core/x.py:1 f61"] == 62
    median, p90, p99 = band(list(found.values()))
    assert (median > MEDIAN, p90 > P90, p99 > P99) == (True, True, True)


# Importing opens nothing

# Airflow opens what it likes when it is imported; the DAG tests load those files.
HEAVY = {source.path for source in SOURCES if any(top(name) == "airflow" for _, name in imports(source.tree))}
_WATCH = """
import importlib, socket, sys
socket.has_ipv6 = False  # urllib3 asks the kernel for a socket to learn this
sys.path.insert(0, {root!r})
def watch(event, arguments):
    if event in ("socket.__new__", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.fork"):
        raise RuntimeError("importing " + name + " caused " + event)
sys.addaudithook(watch)
for name in {names!r}:
    importlib.import_module(name)
"""


def import_all(names: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    code = _WATCH.format(root=str(root), names=names)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_importing_opens_nothing() -> None:
    cheap = [module_name(source.path) for source in SOURCES if source.path not in HEAVY and source.package != "dags"]
    done = import_all(cheap, ROOT)
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.parametrize("text", ["import socket\nsocket.socket()", "import subprocess\nsubprocess.run(['true'])"])
def test_an_import_that_opens_something_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "opener.py").write_text(text)
    done = import_all(["opener"], tmp_path)
    assert done.returncode != 0
    assert "importing opener caused" in done.stderr
