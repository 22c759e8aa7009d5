"""The ground of each pytest process: its embedded servers, dirty data made once, and a field for each test."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from briefly_admin.embedded import EmbeddedServers
from tests.faults.aftermath import Migrated, migrated
from tests.faults.ground import Ground, make_app, make_dirty
from tests.faults.harness import Field, Undisturbed


@pytest.fixture(scope="session")
def common_ground(embedded: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Its databases go with the servers."""
    return Ground(embedded, make_dirty(embedded), make_app(embedded), tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def migrated_place(common_ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrated]:
    """A small migrated database, for those who roll copies of it back."""
    with migrated(replace(common_ground, logs=tmp_path_factory.mktemp("migrated")), 3) as place:
        yield place


@pytest.fixture(scope="session")
def undisturbed(common_ground: Ground) -> Undisturbed:
    """A run, in this process, that nothing happens to."""
    return common_ground.undisturbed


@pytest.fixture
def ground(common_ground: Ground, undisturbed: Undisturbed, tmp_path: Path) -> Ground:
    """The same for one test, which has its logs for itself."""
    return replace(common_ground, reference=undisturbed, logs=tmp_path)


@pytest.fixture
def field(ground: Ground) -> Iterator[Field]:
    """A copy of the dirty data and nobody at work on it yet."""
    with ground.field() as made:
        yield made
