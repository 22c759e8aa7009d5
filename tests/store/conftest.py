"""An app database opened, and one run in it."""

from collections.abc import Iterator

import pytest

from briefly_admin.store.database import Database


@pytest.fixture
def database(app_database: str) -> Iterator[Database]:
    opened = Database(app_database)
    yield opened
    opened.close()
