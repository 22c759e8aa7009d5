"""The migrate phase on a real server: exactly once, whatever the batch size and whoever is killed on the way."""

import pytest

from briefly_admin.engine import migrate
from tests.engine.writing_bench import Bench, contents, fill, oracle, same


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_result_equals_the_oracle_whatever_the_batch_size(target_database: str, batch_size: int) -> None:
    before = fill(target_database)
    bench = Bench(target_database)
    result = bench.lead(migrate.run, batch_size=batch_size)
    assert same(contents(target_database), oracle(before))
    assert result["looked"] == 400
    expected = oracle(before)
    different = sum(a != b for table in before for a, b in zip(before[table], expected[table], strict=True))
    assert result["changed"] == different
    assert result["skipped"] == 0
    assert bench.record.processed == bench.record.total == 400
    assert bench.progress[-1].done == 400
