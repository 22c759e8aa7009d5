"""Writers at work throughout: nothing that a repair would change is left behind the cursor."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors

from briefly_admin.engine import constrain, expand, migrate
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.cutting import Cut
from tests.engine.writing_bench import Bench, fill

_INSERTS = (
    'INSERT INTO "us ""ers"" 100%%s" VALUES (-%(n)s, CASE WHEN %(n)s %% 2 = 0 THEN \'pro\' END, \'x\')',
    "INSERT INTO \"chu%%nks\" SELECT 'A', -%(n)s, id, NULL, %(n)s FROM files WHERE user_id IS NOT NULL ORDER BY id LIMIT 1",
    'UPDATE "chu%%nks" SET created = created + 1 WHERE "n""o" = %(n)s %% 300',
)
_DIRTY = """
SELECT (SELECT count(*) FROM "us ""ers"" 100%s" WHERE "ti er%" IS NULL), (SELECT count(*) FROM "chu%nks" WHERE idx IS NULL),
  (SELECT count(*) FROM (SELECT FROM "chu%nks" GROUP BY file_id, idx HAVING count(*) > 1) AS twice)
"""


@contextlib.contextmanager
def writing(dsn: str) -> Iterator[dict[str, int]]:
    """Somebody who puts dirty rows in until the constraints keep them out; how many went in and how many did not."""
    over, told = threading.Event(), {"in": 0, "refused": 0}

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            number = 0
            while not over.wait(0.002):
                number += 1
                for statement in _INSERTS:
                    try:
                        connection.execute(statement.encode(), {"n": number})
                        told["in"] += 1
                    except (errors.IntegrityError, errors.DeadlockDetected):
                        told["refused"] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


def test_nothing_repairable_is_left_while_others_write(target_database: str) -> None:
    fill(target_database)
    with psycopg.connect(target_database) as connection:
        # Numbers that were given twice before are not the repairs' to cure, and the unique index refuses them.
        connection.execute(
            'DELETE FROM "chu%nks" a USING "chu%nks" b WHERE a.file_id = b.file_id AND a.idx = b.idx AND a."n""o" < b."n""o"'
        )
    bench = Bench(target_database)
    swept: dict[str, Any] = {}

    def phases(context: RunContext) -> dict[str, Any]:
        expand.run(context)
        with writing(target_database) as told:
            migrate.run(context, Cut(smallest=20, largest=60))
            swept.update(constrain.run(context)["swept"])
        return dict(told)

    told = bench.lead(phases, batch_size=5, max_retries=10, pause=5)
    assert told["in"] > 100
    assert told["refused"] > 0
    assert swept
    with psycopg.connect(target_database) as connection:
        assert connection.execute(_DIRTY.encode()).fetchone() == (0, 0, 0)
