"""A rollback killed at a few statements; and that a database between before and after is noticed."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.aftermath import Migrated
from tests.faults.ground import Ground
from tests.faults.rows import rollbacks
from tests.faults.test_rows import says


def test_killed_rollbacks(common_ground: Ground, migrated_place: Migrated, tmp_path: Path) -> None:
    ground = replace(common_ground, logs=tmp_path)
    facts = rollbacks.with_forks(migrated_place, ground, 1, kills=4, victims=("horse", "worker", "session"))
    assert facts["count"] >= 4
    assert "never between" in says("rollbacks", facts)


def test_a_database_between_is_noticed() -> None:
    before, between, after = ({"users": users, "schema": ["s"]} for users in (["a", "b"], ["x", "b"], ["x", "y"]))
    struck = rollbacks.Struck(lambda: None)
    assert rollbacks.require_an_end(after, (before, after), struck, restored=False)
    assert not rollbacks.require_an_end(before, (before, after), struck, restored=False)
    with pytest.raises(AssertionError, match="is not any more"):
        rollbacks.require_an_end(before, (before, after), struck, restored=True)
    with pytest.raises(AssertionError, match="between"):
        rollbacks.require_an_end(between, (before, after), struck, restored=False)
    with pytest.raises(AssertionError, match="between"):
        rollbacks.require_an_end(after | {"schema": []}, (before, after), struck, restored=False)
