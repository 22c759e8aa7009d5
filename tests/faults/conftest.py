"""A database of dirty data, made once; what an undisturbed run makes of it; and a field for each test."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from briefly_admin.domain.runs import RunState
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine import sampledata
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.store.migrate import upgrade
from tests.faults.harness import Field, Undisturbed, contents, copy_database, drop_database, environment


@pytest.fixture(scope="session")
def dirty_data(embedded: EmbeddedServers) -> Iterator[str]:
    """The name of a database of sample data, one row in twenty of it faulty, to be copied."""
    url = copy_database(embedded, "template1")
    sampledata.create(Target(url), plan("unified"), scale=20, dirty=5, seed=7, embeddings=0)
    yield urlsplit(url).path[1:]
    drop_database(embedded, url)


@pytest.fixture(scope="session")
def undisturbed(
    embedded: EmbeddedServers, dirty_data: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    """A run, in this process, that nothing happens to."""
    target, app = copy_database(embedded, dirty_data), copy_database(embedded, "template1")
    upgrade(app)
    home = tmp_path_factory.mktemp("undisturbed")
    before = contents(target)
    field = Field(environment(home, app=app, target=target, redis=embedded.redis_url, lease=30), home)
    with field.cleaned():
        run = field.migrate(pause=0)
        run = field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
        assert run.state is RunState.COMPLETED_WITH_SKIPS, (run.state, run.error, run.remedy)
        yield Undisturbed(before, contents(target), (run.report or {})["migrate"])
    for url in (target, app):
        drop_database(embedded, url)


@pytest.fixture
def field(
    embedded: EmbeddedServers,
    dirty_data: str,
    undisturbed: Undisturbed,
    app_database: str,
    redis_url: str,
    tmp_path: Path,
) -> Iterator[Field]:
    """A copy of the dirty data and nobody at work on it yet."""
    target = copy_database(embedded, dirty_data)
    try:
        with Field(environment(tmp_path, app=app_database, target=target, redis=redis_url), tmp_path).cleaned() as made:
            yield made
    finally:
        drop_database(embedded, target)
