"""Rules follow from the declared columns and the table's laws; whoever changes them voids the verdicts."""

from dataclasses import replace

import pytest

from core import ring
from quality import facts
from quality.columns import declared
from quality.suites import Judge, Rule, messages_rules

RULES = messages_rules()


def test_every_rule_has_a_fact_and_every_fact_a_rule() -> None:
    judged = {rule.fact for rule in RULES} | {rule.same_as for rule in RULES if rule.same_as}
    assert judged == facts.of_file([], 0, ring.WHOLE, 0).row().keys()


def test_a_rule_has_a_name_of_its_own_that_fits_on_a_line() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.name.isprintable() and ";" not in rule.name for rule in RULES)


def test_a_rule_has_a_bound() -> None:
    assert all(rule.same_as or (rule.lowest, rule.highest) != (None, None) for rule in RULES)


def test_a_column_that_may_be_null_has_no_rule_against_it() -> None:
    columns = [replace(column, nullable=True) for column in declared()]
    assert not [rule.name for rule in messages_rules(columns) if "null" in rule.name]
    assert [rule.name for rule in RULES if "null" in rule.name] == [
        "conversation_id is never null",
        "message_id is never null",
        "deleted is never null",
        "reactions.user_id is never null",
        "reactions.event_id is never null",
    ]


def test_the_same_rules_are_the_same_suite() -> None:
    assert Judge(RULES).suite == Judge(messages_rules()).suite


@pytest.mark.parametrize(
    "others",
    [
        RULES[:-1],
        (*RULES, Rule("another", facts.ROWS, highest=5)),
        (replace(RULES[0], name="renamed"), *RULES[1:]),
        (replace(RULES[0], highest=1), *RULES[1:]),
        (replace(RULES[0], lowest=0), *RULES[1:]),
        (replace(RULES[0], fact=facts.ROWS), *RULES[1:]),
    ],
)
def test_other_rules_are_another_suite(others: tuple[Rule, ...]) -> None:
    assert Judge(others).suite != Judge(RULES).suite


def test_facts_of_another_meaning_are_another_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Judge(RULES).suite
    monkeypatch.setattr(facts, "VERSION", facts.VERSION + 1)
    assert Judge(RULES).suite != before
