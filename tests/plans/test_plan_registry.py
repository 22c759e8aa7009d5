import subprocess
import sys
from dataclasses import replace

import pytest
from marshmallow import fields, validate

from briefly_admin.domain.errors import NotFound
from briefly_admin.plans import PLANS, plan
from briefly_admin.plans.base import Plan, Repair, SchemaChange
from briefly_admin.plans.records import UserRecord
from briefly_admin.plans.unified import UNIFIED


def test_a_plan_is_found_by_name() -> None:
    assert plan("unified") is UNIFIED
    assert set(PLANS) == {"unified"}


def test_an_unknown_plan_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(NotFound) as caught:
        plan("unifed")
    assert "'unifed'" in caught.value.message
    assert "unified" in caught.value.remedy


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_fingerprint_is_the_same_in_every_process(hash_seed: str) -> None:
    program = "from briefly_admin.plans import plan; print(plan('unified').fingerprint)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
    )
    assert done.stdout.strip() == UNIFIED.fingerprint


class _OtherTiers(UserRecord):
    subscription_tier = fields.String(required=True, validate=validate.OneOf(("free", "pro")))


class _LaxCounts(UserRecord):
    usage_documents = fields.Integer(required=True, validate=validate.Range(min=0))


class _OptionalTier(UserRecord):
    subscription_tier = fields.String(validate=validate.OneOf(("free", "pro", "pro_byok")))


_USERS = UNIFIED.tables[0]
_CHANGED = {
    "a record's words": replace(UNIFIED, tables=(replace(_USERS, record=_OtherTiers), *UNIFIED.tables[1:])),
    "a record's strictness": replace(UNIFIED, tables=(replace(_USERS, record=_LaxCounts), *UNIFIED.tables[1:])),
    "a record's need": replace(UNIFIED, tables=(replace(_USERS, record=_OptionalTier), *UNIFIED.tables[1:])),
    "a repair": replace(
        UNIFIED,
        tables=(
            replace(_USERS, repairs=(Repair("subscription_tier", "'pro'", ""), *_USERS.repairs[1:])),
            *UNIFIED.tables[1:],
        ),
    ),
    "a column": replace(UNIFIED, tables=(replace(_USERS, columns=_USERS.columns[1:]), *UNIFIED.tables[1:])),
    "a relation": replace(UNIFIED, tables=(replace(_USERS, relations=()), *UNIFIED.tables[1:])),
    "a unique": replace(UNIFIED, tables=(replace(_USERS, uniques=()), *UNIFIED.tables[1:])),
    "the order": replace(UNIFIED, tables=tuple(reversed(UNIFIED.tables))),
    "a change": replace(UNIFIED, changes=(*UNIFIED.changes, SchemaChange("index", "users", ("created_at",), "x"))),
    "a query": replace(UNIFIED, queries=UNIFIED.queries[1:]),
    "the name": replace(UNIFIED, name="other"),
}


@pytest.mark.parametrize("changed", _CHANGED.values(), ids=_CHANGED.keys())
def test_the_fingerprint_tells_any_change(changed: Plan) -> None:
    assert changed.fingerprint != UNIFIED.fingerprint
