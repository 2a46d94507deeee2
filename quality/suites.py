"""The rules that a unit's cold files must keep, as a Great Expectations suite over their facts.

Great Expectations is imported at the first judgement: that takes ten seconds, and on most days nothing waits for one.
It judges facts, in memory, and says of each rule only whether it was kept.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from core.errors import FirnError
from quality import facts
from quality.columns import Column, Kind, declared
from quality.facts import Facts

if TYPE_CHECKING:
    import great_expectations as gx

_ONLY_WHETHER = "BOOLEAN_ONLY"


@dataclass(frozen=True)
class Rule:
    """`fact` lies within the bounds, or is the same as the fact `same_as`. `name` is what a verdict says."""

    name: str
    fact: str
    lowest: int | None = None
    highest: int | None = None
    same_as: str = ""


def messages_rules(columns: Sequence[Column] = declared()) -> tuple[Rule, ...]:
    """What the declared columns ask for, then the laws of the table."""
    return (*(rule for column in columns for rule in _of_column(column)), *_LAWS)


def _of_column(column: Column) -> Iterator[Rule]:
    if not column.nullable:
        yield _none(f"{column.name} is never null", facts.nulls(column))
    if column.kind in (Kind.UUID, Kind.ORDERED_ID):
        yield _none(f"{column.name} is {column.kind}", facts.strangers(column))
    if column.most is not None:
        yield Rule(f"{column.name} is at most {column.most:,} long", facts.largest(column), highest=column.most)
    if column.least is not None:
        yield Rule(f"{column.name} is at least {column.least}", facts.least(column), lowest=column.least)


def _none(name: str, fact: str) -> Rule:
    return Rule(name, fact, highest=0)


_LAWS = (
    Rule("rows are as many as the ledger says", facts.ROWS, same_as=facts.ROWS_TOLD),
    _none("rows are of the file's week", facts.OTHER_WEEK),
    _none("rows are of the file's shard", facts.OTHER_SHARD),
    _none("rows are in key order", facts.OUT_OF_ORDER),
    _none("a key stands once", facts.REPEATED),  # apart from each other, two of one key are out of order
    _none("a deleted row holds nothing", facts.DELETED_BUT_FULL),
    _none("a message has its sender and time", facts.INCOMPLETE),
    _none("an edit has its author", facts.UNSIGNED),
    _none("an amendment alone has no cell of a message", facts.ORPHAN_BUT_FULL),
    _none("server_ts is within a day of the id", facts.OTHER_TIME),
    _none("reactions ascend by user, one each", facts.UNSORTED),
)


def messages_suite(rules: Sequence[Rule]) -> "gx.ExpectationSuite":
    import great_expectations as gx  # noqa: PLC0415 (see above)

    return gx.ExpectationSuite("messages", [_expectation(rule) for rule in rules])


def _expectation(rule: Rule) -> Any:
    import great_expectations.expectations as gxe  # noqa: PLC0415 (see above)

    meta = {"rule": rule.name}
    if rule.same_as:
        return gxe.ExpectColumnPairValuesToBeEqual(column_A=rule.fact, column_B=rule.same_as, meta=meta)
    return gxe.ExpectColumnValuesToBeBetween(column=rule.fact, min_value=rule.lowest, max_value=rule.highest, meta=meta)


@dataclass(frozen=True)
class Judge:
    """Judges by `rules`; one serves for as long as a process lives."""

    rules: tuple[Rule, ...]

    @property
    def suite(self) -> str:
        """Names the rules, their bounds and what their facts mean: a verdict by others is void."""
        told = json.dumps([facts.VERSION, *map(asdict, self.rules)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def broken(self, files: Sequence[Facts]) -> tuple[str, ...]:
        """Names of the rules that these files, taken together, do not keep."""
        if not files:
            return ()
        kept = {_name(result): bool(result.success) for result in self.validated(files).results}
        return tuple(rule.name for rule in self.rules if not kept[rule.name])

    def validated(self, files: Sequence[Facts]) -> "gx.ExpectationSuiteValidationResult":
        """All that Great Expectations has to say, with nothing of what it saw."""
        batch = self._frames.get_batch({"dataframe": _frame(files)})
        return batch.validate(self._suite, result_format=_ONLY_WHETHER)

    @cached_property
    def _suite(self) -> "gx.ExpectationSuite":
        return messages_suite(self.rules)

    @cached_property
    def _frames(self) -> Any:
        """A context that lives in memory: it writes no file, reports to nobody and draws no progress bar."""
        import great_expectations as gx  # noqa: PLC0415 (see above)
        from great_expectations.data_context.types import base  # noqa: PLC0415 (see above)

        settings = base.DataContextConfig(
            store_backend_defaults=base.InMemoryStoreBackendDefaults(),
            analytics_enabled=False,
            progress_bars=base.ProgressBarsConfig(globally=False, metric_calculations=False),
        )
        context = gx.get_context(mode="ephemeral", project_config=settings)
        frames = context.data_sources.add_pandas("cold files").add_dataframe_asset("facts")
        return frames.add_batch_definition_whole_dataframe("unit")


def _frame(files: Sequence[Facts]) -> Any:
    """A row per file."""
    import pandas as pd  # noqa: PLC0415 (see above)

    return pd.DataFrame([file.row() for file in files])


def _name(result: Any) -> str:
    """FirnError where Great Expectations could not judge: that is no verdict on the data."""
    rule = str(result.expectation_config.meta["rule"])
    if result.exception_info.get("raised_exception", True):
        raise FirnError(f"the rule {rule!r} could not be judged", "see that quality/facts.py still states its fact")
    return rule
