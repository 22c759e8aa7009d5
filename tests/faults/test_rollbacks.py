"""A rollback killed at a few statements; and that a database between before and after is noticed."""

import pytest

from tests.faults.ground import Ground
from tests.faults.harness import Field
from tests.faults.rows import rollbacks
from tests.faults.test_rows import says


def test_a_killed_rollback(ground: Ground) -> None:
    facts = rollbacks.trial(ground, 0, kills=3, rollbacks=1, victims=("horse", "session"))
    assert facts["count"] >= 2
    assert "never between" in says("rollbacks", facts)


def test_a_database_between_is_noticed(field: Field) -> None:
    before = field.contents()
    field.ask("UPDATE users SET email = 'x' WHERE id = (SELECT min(id::text)::uuid FROM users) RETURNING 1", variable="TARGET_DATABASE_URL")  # fmt: skip
    between = field.contents()
    field.ask("UPDATE users SET email = 'y' RETURNING 1", variable="TARGET_DATABASE_URL")
    after, struck = field.contents(), rollbacks.Struck()
    assert rollbacks._look(field, (before, after), struck, restored=False)
    with pytest.raises(AssertionError, match="is not any more"):
        rollbacks._look(field, (after, before), struck, restored=True)
    with pytest.raises(AssertionError, match="between"):
        rollbacks._look(field, (before, between), struck, restored=False)
