"""A few rows of every type; and that a row which came back otherwise is noticed."""

from collections.abc import Callable

import pytest
from psycopg import sql

from briefly_admin.engine.staged import StagedTable, staged_digest
from briefly_admin.engine.target import Connection
from tests.faults.ground import Ground
from tests.faults.rows import types
from tests.faults.test_rows import says


def test_every_type_survives(ground: Ground) -> None:
    facts = types.trial(ground, 1, 300)
    assert facts["columns"] > 200
    assert "300 rows of" in says("types", facts)


def _loses_a_row(connection: Connection, staged: StagedTable) -> None:
    connection.execute(sql.SQL("DELETE FROM {} WHERE id = 7").format(staged.identifier))


def _changes_a_field(connection: Connection, staged: StagedTable) -> None:
    connection.execute(sql.SQL("UPDATE {} SET toast = 'x' WHERE id = 7").format(staged.identifier))


@pytest.mark.parametrize("hurt", [_loses_a_row, _changes_a_field])
@pytest.mark.parametrize("digested", [True, False])
def test_a_row_that_comes_back_otherwise_is_noticed(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    hurt: Callable[[Connection, StagedTable], None],
    *,
    digested: bool,
) -> None:
    """By the digest; and by the rows themselves, were the digest blind."""

    def digest(connection: Connection, staged: StagedTable) -> object:
        right = staged_digest(connection, staged)
        hurt(connection, staged)
        return staged_digest(connection, staged) if digested else right

    monkeypatch.setattr(types, "staged_digest", digest)
    with pytest.raises(AssertionError, match="the digest is" if digested else r"rows differ|rows instead"):
        types.trial(ground, 1, 20)
