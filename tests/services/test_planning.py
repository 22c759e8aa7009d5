"""What the plan's page is told of the checks: in words, and who decides them."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from briefly_admin.engine.sampledata import create
from briefly_admin.plans.base import Column, ForeignKey, Plan, Relation, Table, Unique
from briefly_admin.services import ServiceConfig
from briefly_admin.services.planning import plan_view
from briefly_admin.services.views import PlanCheck, PlanView
from tests.services.conftest import Stage


def polite(value: str) -> None:
    """A validator that no SQL can stand for."""
    if value == value[::-1]:
        raise ValidationError("Reads the same both ways.")


class _Person(Schema):
    id = fields.Integer(required=True, strict=True)
    email = fields.Email(required=True)
    nickname = fields.String(required=True, validate=[validate.Length(min=2), polite])
    friend = fields.Integer(allow_none=True, strict=True)


class _Pair(Schema):
    id = fields.Integer(required=True, strict=True)

    @validates_schema
    def odd(self, data: dict[str, Any], **_: Any) -> None:
        if data["id"] % 2 == 0:
            raise ValidationError("Even.")


PEOPLE = Table(
    "people", _Person,
    (Column("id", "integer"), Column("email", "text"), Column("nickname", "text"), Column("friend", "integer")),
    foreign_keys=(ForeignKey("friend", "people"),), uniques=(Unique(("email", "nickname")),),
    relations=(
        Relation("lonely", "friend", "notice", "people without a friend", {"people": "people"},
                 "SELECT id AS key FROM {people} WHERE friend IS NULL", (("friend", ("int4",)),)),
        Relation("alike", "nickname", "notice", "names of another type", {"people": "people"},
                 "SELECT id AS key FROM {people}", (("nickname", ("int4",)),)),
        Relation("rich", "wealth", "notice", "rich people", {"people": "people"},
                 "SELECT id AS key FROM {people}", (("wealth", ()),)),
    ),
)  # fmt: skip
PAIRS = Table("pairs", _Pair, (Column("id", "integer"),))
CONFIG = ServiceConfig(plan_name="people", audit_key=b"k" * 32)
PLAN = Plan("people", "People", "Own code.", (PEOPLE, PAIRS))


@pytest.fixture
def view(stage: Stage) -> PlanView:
    """The plan over a target that has `people`, and `pairs` in another schema alone."""
    with psycopg.connect(stage.servers.target.dsn) as connection:
        connection.execute(
            "CREATE TABLE people (id int PRIMARY KEY, email varchar, nickname text, friend int, gone int)"
        )
        connection.execute("ALTER TABLE people DROP COLUMN gone")
        connection.execute("CREATE SCHEMA other CREATE TABLE pairs (id int PRIMARY KEY)")
    return plan_view(replace(stage.servers, plan=PLAN), CONFIG)


def test_a_validator_of_the_plans_own_code_is_named_as_slow(view: PlanView) -> None:
    (slow,) = [check for check in view.tables[0].checks if check.how == "python"]
    assert (slow.field, slow.rule) == ("nickname", "polite")
    assert slow.why


def test_each_rule_says_who_decides_it(view: PlanView) -> None:
    how = {(check.field, check.rule): check.how for check in view.tables[0].checks}
    assert how.pop(("nickname", "polite")) == "python"
    assert how.pop(("email", "email")) == "sound"
    assert set(how) >= {
        ("id", "null"), ("email", "null"), ("nickname", "null"), ("nickname", "length"), ("friend", "foreign_key"),
        ("email, nickname", "unique"), ("friend", "lonely"),
    }  # fmt: skip
    assert set(how.values()) == {"exact"}
    assert not {"alike", "rich"} & {rule for _, rule in how}, "not asked of columns of another type, or missing"
    words = {(check.field, check.rule): check.words for check in view.tables[0].checks}
    assert words["friend", "foreign_key"] == "must be the id of a row of people"
    assert words["friend", "lonely"] == "reported: people without a friend"


def test_a_table_that_is_not_there_has_no_checks(view: PlanView) -> None:
    assert (view.tables[1].rows, view.tables[1].checks) == (None, ())


def test_a_schema_that_looks_at_whole_rows_is_judged_in_python(stage: Stage) -> None:
    with psycopg.connect(stage.servers.target.dsn) as connection:
        connection.execute("CREATE TABLE pairs (id int PRIMARY KEY)")
    view = plan_view(replace(stage.servers, plan=replace(PLAN, tables=(PAIRS,))), CONFIG)
    assert [(check.field, check.how) for check in view.tables[0].checks] == [("", "python")]


def test_the_shipped_plan_needs_python_for_no_usual_value(stage: Stage) -> None:
    create(stage.servers.target, stage.servers.plan, embeddings=0)
    view = stage.services.runs.plan_view(stage.vito)
    checks = [(table.name, check) for table in view.tables for check in table.checks]
    assert {check.how for _, check in checks} == {"exact", "sound"}
    assert {(table, check.field) for table, check in checks if check.how == "sound"} == {("users", "email")}
    assert PlanCheck("file_size", "range", "must be at least 0", "exact") in view.tables[1].checks
    assert {check.rule for check in view.tables[2].checks} >= {"foreign_key", "owner", "hole", "dimension"}
