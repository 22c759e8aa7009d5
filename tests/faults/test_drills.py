"""Drills that are killed; and that one which leaves its scratch behind is noticed."""

import psycopg
import pytest

from tests.faults.ground import Ground
from tests.faults.harness import Field
from tests.faults.rows import drills
from tests.faults.test_rows import says


@pytest.mark.parametrize("seed", [7, 1], ids=["killed and damaged", "given up"])
def test_a_killed_drill(ground: Ground, seed: int) -> None:
    facts = drills.trial(ground, seed)
    assert facts["damaged"] == (seed == 7)
    assert "no scratch schema left" in says("drills", facts)


def test_a_scratch_that_is_left_is_noticed(field: Field) -> None:
    url = field.environ["TARGET_DATABASE_URL"]
    drills.require_no_scratch(url)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA briefly_scratch_of_somebody")
    with pytest.raises(AssertionError, match="briefly_scratch_of_somebody"):
        drills.require_no_scratch(url)
