"""A row that keep restores and whose children it counts anew is neither the backup's nor the migration's."""

from pathlib import Path
from uuid import uuid4

import pytest

from briefly_admin.domain.runs import Phase
from tests.engine.three_way import ODD, backed_up, migrated


@pytest.mark.parametrize("rule", ["keep", "restore"])
def test_a_row_restored_and_counted_anew_is_done(target_database: str, tmp_path: Path, rule: str) -> None:
    sealed = backed_up(target_database, tmp_path)
    sealed.execute('UPDATE "o""dd %s {} files" SET "wh""o %" = \'/x\' WHERE id = 15')
    sealed.backup_id = uuid4()
    sealed.back_up()
    migrated(target_database, tmp_path, existing=sealed)
    sealed.execute("INSERT INTO chunks VALUES (115, 15, 3, 115)")
    done = sealed.roll_back(mode="keep", rules={"edited": rule})[Phase.RESTORE]
    assert sealed.query('SELECT "wh""o %", chunks, big FROM "o""dd %s {} files" WHERE id = 15') == [("/x", 4, 115)]
    assert done["recomputed"] == {ODD: 2}
