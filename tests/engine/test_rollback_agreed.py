"""The rows of tables outside that a rollback touches are those that were confirmed, or nearly so many."""

from pathlib import Path
from typing import Any

import pytest

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import rollback
from briefly_admin.engine.rollback import outside
from tests.engine.sealed_target import SealedTarget, plan_of


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """Two accounts were made since the backup; three bills, and two notes, refer to them."""
    sealed = SealedTarget(target_database, plan_of("accounts"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY)", "INSERT INTO accounts VALUES (1)",
        "CREATE TABLE bills (id int PRIMARY KEY, a int REFERENCES accounts ON DELETE CASCADE)",
        "CREATE TABLE notes (id int PRIMARY KEY, a int REFERENCES accounts ON DELETE SET NULL)",
    )  # fmt: skip
    sealed.back_up()
    sealed.execute(
        "INSERT INTO accounts VALUES (2), (3)", "INSERT INTO bills VALUES (1, 2), (2, 2), (3, 3), (4, 1)",
        "INSERT INTO notes VALUES (1, 2), (2, 3)",
    )  # fmt: skip
    return sealed


def confirmed(sealed: SealedTarget) -> dict[str, Any]:
    """The options of a rollback after a look at a preview, with both tables ticked."""
    counts: dict[str, int] = {}
    for entry in sealed.preview()["outside"]:
        counts[entry["table"]] = counts.get(entry["table"], 0) + entry["rows"]
    assert counts == {"public.bills": 3, "public.notes": 2}
    return {"allow": list(counts), "expected_outside": counts}


def test_more_or_fewer_rows_than_were_confirmed_refuse(sealed: SealedTarget) -> None:
    options = confirmed(sealed)
    sealed.execute("INSERT INTO bills VALUES (5, 3), (6, 3)", "DELETE FROM notes")
    with pytest.raises(Refused, match="changed since the preview was confirmed") as caught:
        sealed.roll_back(**options, allowance=1)
    assert "5 rows of public.bills would be touched instead of 3; 0 rows of public.notes" in caught.value.message
    assert "Look at a new preview" in str(caught.value.remedy)
    with pytest.raises(Refused, match=r": 0 rows of public\.notes would be touched instead of 3\. Look"):
        sealed.roll_back(**options | {"expected_outside": {"public.bills": 5, "public.notes": 3}})
    done = sealed.roll_back(**options, allowance=2)[Phase.RESTORE]
    assert done["outside"] == {"public.bills": 5}
    assert sealed.query("SELECT id FROM bills") == [(4,)]


def test_rows_that_come_after_the_rollbacks_own_preview_are_counted_under_the_lock(sealed: SealedTarget) -> None:
    context = sealed.context(**confirmed(sealed))
    rollback.run_phase(context, Phase.STAGE)
    rollback.run_phase(context, Phase.PREVIEW)
    sealed.execute("INSERT INTO bills VALUES (5, 3)")
    with pytest.raises(Refused, match=r": 4 rows of public\.bills would be touched instead of 3\. Look"):
        rollback.run_phase(context, Phase.RESTORE)
    assert sealed.query("SELECT count(*) FROM bills") == [(5,)]
    assert sealed.query("SELECT count(*) FROM accounts") == [(3,)]


def test_only_ticked_tables_of_a_confirmed_preview_count(sealed: SealedTarget) -> None:
    context = sealed.context(allow=["a.b"], expected_outside={"a.b": 3, "c.d": 9})
    entry = {"table": "a.b", "rows": 3, "blocks": False, "text": "Three."}
    assert outside.agreed(context, [entry]) == {"a.b": 3}
    with pytest.raises(Refused, match=r"1 row of a\.b would be touched instead of 3\. Look"):
        outside.agreed(context, [entry | {"rows": 1}])
    with pytest.raises(Refused, match=r"0 rows of a\.b would be touched instead of 3\. Look"):
        outside.agreed(context, [])
    assert outside.agreed(sealed.context(allow=["a.b"]), [entry]) == {"a.b": 3}  # without a preview
    # keep writes less than the exact rollback that was counted.
    context = sealed.context(mode="keep", allow=["a.b"], expected_outside={"a.b": 3})
    assert outside.agreed(context, [entry | {"rows": 1}]) == {"a.b": 1}
    with pytest.raises(Refused, match=r"4 rows of a\.b would be touched instead of 3\. Look"):
        outside.agreed(context, [entry | {"rows": 4}])


def test_of_fewer_tables_than_were_previewed_no_more_rows_may_be_touched(sealed: SealedTarget) -> None:
    entry = {"table": "a.b", "rows": 1, "blocks": False, "text": "One."}
    confirmed: dict[str, Any] = {
        "allow": ["a.b"],
        "expected_outside": {"a.b": 3},
        "expected": {"accounts": {}, "files": {}},
    }
    fewer = sealed.context(tables=["accounts"], **confirmed)
    assert outside.agreed(fewer, [entry]) == {"a.b": 1}
    with pytest.raises(Refused, match=r"4 rows of a\.b would be touched instead of 3\. Look"):
        outside.agreed(fewer, [entry | {"rows": 4}])
    with pytest.raises(Refused, match=r"1 row of a\.b would be touched instead of 3\. Look"):
        outside.agreed(sealed.context(tables=["accounts", "files"], **confirmed), [entry])
