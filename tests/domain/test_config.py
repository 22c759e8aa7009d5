"""What a run's settings take."""

import pytest

from briefly_admin.domain.config import AUTO, BY_NAME, FIELDS, RunConfig
from briefly_admin.domain.errors import InvalidRequest

EITHER = 'Must be an integer from 1 to 10,000, or "auto".'


@pytest.mark.parametrize("value", [1, 100, 10_000, AUTO])
def test_a_batch_size_is_a_number_or_automatic(value: object) -> None:
    config = RunConfig().with_json({"batchSize": value})
    assert config.batch_size == value
    assert config.to_json()["batchSize"] == value
    assert RunConfig().with_json(config.to_json()) == config


@pytest.mark.parametrize("value", ["100", "Auto", "AUTO", " auto", "", 1.5, 100.0, True, None, [], {}, ["auto"]])
def test_what_is_no_batch_size_is_said_so(value: object) -> None:
    assert BY_NAME["batchSize"].fault(value) == EITHER
    with pytest.raises(InvalidRequest) as refusal:
        RunConfig().with_json({"batchSize": value})
    assert refusal.value.details == {"batchSize": [EITHER]}


@pytest.mark.parametrize(("value", "got"), [(0, "0"), (-5, "-5"), (10_001, "10,001")])
def test_what_is_out_of_bounds_is_repeated(value: int, got: str) -> None:
    assert BY_NAME["batchSize"].fault(value) == f'Must be from 1 to 10,000, or "auto"; got {got}.'
    assert len(BY_NAME["batchSize"].fault(10**400) or "") < 100


def test_only_the_batch_size_is_automatic() -> None:
    for field in FIELDS:
        assert (field.fault(AUTO) is None) is (field.name == "batchSize"), field.name
