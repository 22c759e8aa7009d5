"""The first table of the promises, in its own words, and the rows whose trials measure each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One line of the table; without `rows` it is not tried here yet."""

    words: str
    tried: str
    figure: str
    rows: tuple[str, ...] = ()


PROMISES = (
    Promise(
        "a batch happens exactly once",
        "SIGKILL of worker, horse or PostgreSQL backend at random points; final data against an oracle",
        "500 kills (short leases injected; 10 with the defaults), 0 rows lost or doubled",
        ("kills", "kills-default"),
    ),
    Promise("a lost COMMIT answer is resolved", "a TCP proxy cuts after COMMIT is sent", "200 / 200", ("lost-commit",)),
    Promise(
        "duplicate and zombie jobs do no harm",
        "the same job delivered 5 times; leader stopped (SIGSTOP) past its lease, then woken",
        "0 stale writes",
        ("zombies",),
    ),
    Promise("one run per target", "50 starts at once", "1 starts, 49 refused", ("starts",)),
    Promise("losing Redis loses no run", "FLUSHALL, and a killed server, mid-run", "100 / 100 finish", ("redis",)),
    Promise(
        "a dead worker's run goes on by itself",
        "SIGKILL of the whole worker",
        "again within 60 s, another worker listening or `up` restarting it",
        ("kills-default",),
    ),
    Promise(
        "a restart is graceful",
        "SIGTERM to all processes, as Heroku does",
        "stopped within 10 s at a batch's end, resumed at the next",
        ("sigterm",),
    ),
    Promise(
        "a backup is one instant",
        "money-moving writers during 100 backups",
        "the sum is exact in every one",
        ("instants",),
    ),
    Promise(
        "a backup is whole or fails",
        "role filtered by row-level security; full disk; store answers 5xx",
        "0 silent partials, 0 leftovers",
        ("whole",),
    ),
    Promise(
        "any damage is found",
        "flip, cut, swap, drop, repeat, splice, replay",
        "100,000 mutations, 0 missed",
        ("mutations",),
    ),
    Promise(
        "every backup opens, whatever rotation of the keys dies",
        "ten rotations of the master keys, five times, with SIGKILL between",
        "every backup opens after each kill, and at the end with the newest key alone",
        ("rotations",),
    ),
    Promise(
        "a drill leaves nothing behind",
        "SIGKILL of worker, horse or session; damaged backups; in the target and in a database of its own",
        "0 scratch schemas left, 0 changes, every damage told",
        ("drills",),
    ),
    Promise(
        "a rollback is all or nothing, and exact",
        "SIGKILL at every statement; then digests",
        "300: before or after, never between; equal bytes",
        ("rollbacks",),
    ),
    Promise(
        "a rollback's preview is true",
        "random edits after the migration",
        "preview counts = counts found by brute force",
        ("edits",),
    ),
    Promise(
        "types survive",
        "generated rows of every PostgreSQL type, vectors, infinities, big TOAST",
        "10⁶ rows equal",
        ("types",),
    ),
    Promise(
        "a rehearsal commits nothing",
        "digests, catalog and briefly_migration before/after",
        "0 changes",
        ("rehearsal",),
    ),
    Promise(
        "a result does not depend on how",
        "the same data with batch 1, 7, 100, auto; 1 and 4 workers; kills",
        "identical",
        ("same-result",),
    ),
    Promise(
        "traffic is not queued behind us",
        "a writer at work during schema changes",
        "its worst stall ≤ lock_timeout + 0.2 s",
        ("traffic",),
    ),
    Promise(
        "verdict = marshmallow's",
        "property tests, every shipped schema",
        "0 differences in 100,000 rows",
        ("verdict",),
    ),
)
