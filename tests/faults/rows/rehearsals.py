"""A rehearsal, left alone or killed midway: data, catalog and briefly_migration are byte for byte what they were."""

import hashlib
import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from briefly_admin.domain.runs import RunState
from tests.faults.databases import contents
from tests.faults.ground import Ground
from tests.faults.processes import send
from tests.faults.rows.places import come_to, places
from tests.faults.rows.row import Facts, Row, total

_CATALOGS = (
    "pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_type", "pg_proc", "pg_trigger",
    "pg_namespace", "pg_extension", "pg_depend", "pg_description", "pg_rewrite", "pg_policy", "pg_statistic_ext",
    "pg_event_trigger", "pg_publication", "pg_enum", "pg_collation", "pg_operator", "pg_cast",
)  # fmt: skip
_MOVING = {
    # What reading, vacuuming and analysing move: no definition.
    "pg_class": "- 'relpages' - 'reltuples' - 'relallvisible' - 'relallfrozen' - 'relfrozenxid' - 'relminmxid' "
    "- 'relhasindex'",
}
_OURS = "SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('briefly_migration') AND relkind = 'r'"
_CONFIG: Mapping[str, Any] = {"dryRun": True, "expectQuiet": False, "pause": 0}


def digests(url: str) -> dict[str, str]:
    """SHA-256 of all rows of each of the plan's tables, of each catalog, and of each table of briefly_migration."""
    found = {name: _digest(texts) for name, texts in contents(url).items()}
    with psycopg.connect(url) as connection:

        def texts(query: str) -> list[str]:
            return sorted(str(text) for (text,) in connection.execute(query))

        for name in _CATALOGS:
            # A session's temporary schema stays in the catalog, empty, for the next one.
            but = " WHERE nspname !~ '^pg_(toast_)?temp_'" if name == "pg_namespace" else ""
            found[name] = _digest(texts(f"SELECT (to_jsonb(t) {_MOVING.get(name, '')})::text FROM {name} AS t{but}"))
        for name in texts(_OURS):
            found[name] = _digest(texts(f"SELECT t::text FROM {name} AS t"))
    return found


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def trial(ground: Ground, seed: int) -> Facts:
    """An even seed kills the rehearsal twice; it begins anew, and ends."""
    chance, undisturbed = random.Random(seed), ground.undisturbed
    workers, kills = seed % 2 + 1, 0
    with ground.field() as field:
        url = field.environ["TARGET_DATABASE_URL"]
        before = digests(url)
        field.staff(workers + 1)
        field.listening(workers + 1)
        run = field.migrate(**_CONFIG, workers=workers, batchSize=chance.choice((5, 20, 100)))
        for place in places(2, chance, phases=("validate", "migrate")) if seed % 2 == 0 else ():
            if not come_to(field, run, replace(place, share=place.share / 2), undisturbed, workers=workers + 1):
                break
            pid = field.leading_pid(run)
            if pid is not None:
                send(pid, signal.SIGKILL)
                kills += 1
                assert digests(url) == before, "after a kill"
        run = field.ends(run, seconds=180, workers=workers + 1)
        assert run.state is RunState.COMPLETED, run.state
        after = digests(url)
        assert after == before, sorted(name for name in after | before if after.get(name) != before.get(name))
        assert field.view(run).report
    return {"kills": kills, "digests": len(before)}


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    digests_ = int(trials[0]["digests"])
    return (
        f"0 changes in {len(trials)} rehearsals, {total(trials, 'kills')} kills among them; {digests_} digests each "
        "of data, catalog and briefly_migration"
    )


ROW = Row("rehearsal", 10, "rehearsals", 4, trial, _says)
