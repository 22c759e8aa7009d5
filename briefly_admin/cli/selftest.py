"""`selftest`: sample data, validation, migration and rollback, cleanup: the whole way, on a test database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

from briefly_admin.cli.follow import exit_code, follow
from briefly_admin.cli.printing import as_json, counted, print_json, print_table
from briefly_admin.cli.runs import print_findings
from briefly_admin.cli.session import Session, session
from briefly_admin.domain.errors import InvalidRequest, VerificationFailed
from briefly_admin.domain.findings import blocking
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.sampledata import PlantedFault, planted_faults

_BLOCKING: Final = 3
_LONGEST_NUMBER: Final = 18
_NOT_PLANTED: Final = "not planted: "


def _embeddings(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "none":
        return 0
    if not text.isdecimal():
        raise InvalidRequest("--embeddings must be 'none' or a number of chunks.")
    return int(text[:_LONGEST_NUMBER])


def _print_counts(counts: Mapping[str, int], verb: str) -> None:
    print_table(("table", f">rows {verb}"), ((name, f"{rows:,}") for name, rows in counts.items()), empty="")


@dataclass(frozen=True, slots=True)
class _Made:
    """Rows by table, the planted faults, and the names of those that a column's type rules out."""

    rows: Mapping[str, int]
    planted: Sequence[PlantedFault]
    left_out: Sequence[str]


def _create(active: Session, *, scale: int = 1, dirty: int = 0, seed: int = 0, embeddings: int | None = None) -> _Made:
    left_out: list[str] = []

    def report(table: str, _: int) -> None:
        if table.startswith(_NOT_PLANTED):
            left_out.append(table.removeprefix(_NOT_PLANTED))

    rows = active.services.sampledata.create(
        active.actor, scale=scale, dirty=dirty, seed=seed, embeddings=embeddings, report=report
    )
    return _Made(rows, planted_faults(seed, without=left_out) if dirty else (), left_out)


def _print_made(made: _Made, *, listed: bool) -> None:
    _print_counts(made.rows, "made")
    for name in made.left_out:
        click.echo(f"{_NOT_PLANTED}{name}")
    if not made.planted:
        return
    click.echo(f"\n{len(made.planted)} rows have a fault on purpose, one each{':' if listed else '.'}")
    if listed:
        lines = ((fault.name, fault.finding_class, _found_as(fault)) for fault in made.planted)
        print_table(("fault", "class", "found as"), lines, empty="")
    click.echo("To see them: briefly-admin validate. docs/guide.md has the cure of each.")


def _found_as(fault: PlantedFault) -> str:
    return ", ".join(f"{fault.table}.{field} {rule}" for field, rule in fault.findings)


def _test_validation(active: Session) -> None:
    view = follow(active, active.services.runs.start(active.actor, RunKind.VALIDATION).id)
    if view.state is not RunState.COMPLETED:
        _fail("Validation", view.sentence, exit_code(view))
    findings = active.services.findings.list(active.actor, view.id)
    print_findings(findings)
    stops = blocking(findings)
    if stops:
        _fail("Validation", f"{counted(len(stops), 'finding blocks', 'findings block')} a migration.", _BLOCKING)
    click.echo("Validation passed.")


def _test_migration(active: Session) -> None:
    """Migrate, verify, roll back: the rollback proves by digest that every table is what it was."""
    before = active.services.sampledata.counts(active.actor)
    migrated = follow(
        active, active.services.runs.start(active.actor, RunKind.MIGRATION, config={"onInvalid": "skip"}).id
    )
    if exit_code(migrated):
        _fail("Migration", migrated.sentence, exit_code(migrated))
    click.echo(migrated.sentence)
    if active.services.sampledata.counts(active.actor) != before:
        raise VerificationFailed("The migration lost or made rows.")
    backup = migrated.backup_name or ""
    rolled = active.services.runs.rollback(active.actor, backup, confirm=True, reason="self-test")
    rolled = follow(active, rolled.id)
    if exit_code(rolled):
        _fail("Rollback", rolled.sentence, exit_code(rolled))
    click.echo(rolled.sentence)
    click.echo("Migration and rollback passed.")


def _cleanup(active: Session) -> None:
    _print_counts(active.services.sampledata.cleanup(active.actor), "removed")
    left = sum(active.services.sampledata.counts(active.actor).values())
    if left:
        raise VerificationFailed(f"{counted(left, 'sample row is', 'sample rows are')} still there.")
    click.echo("None of the sample rows is left.")


def _fail(what: str, why: str, code: int) -> None:
    click.echo(f"{what} failed: {why}", err=True)
    raise click.exceptions.Exit(code)


@click.group(invoke_without_command=True)
@click.pass_context
def selftest(context: click.Context) -> None:
    """Try everything on a test database; without a sub-command all four in order."""
    if context.invoked_subcommand is None:
        with session() as active:
            _print_made(_create(active), listed=False)
            _test_validation(active)
            _test_migration(active)
            _cleanup(active)
        click.echo("The self-test passed.")


@selftest.command(name="create-data")
@click.option("--scale", default=1, show_default=True, help="Multiplies the counts (5 users, 50 chunks …).")
@click.option("--dirty", default=0, show_default=True, metavar="PERCENT", help="Rows with a repairable fault.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other rows.")
@click.option("--embeddings", metavar="none|N", help="How many chunks get an embedding.")
@click.option("--list/--no-list", "listed", default=True, help="Name the planted faults.")
@as_json
def create_data(scale: int, dirty: int, seed: int, embeddings: str | None, *, listed: bool, as_json: bool) -> None:
    """Make sample data; older sample data goes first. With --dirty every fault is planted once, by name."""
    with session() as active:
        made = _create(active, scale=scale, dirty=dirty, seed=seed, embeddings=_embeddings(embeddings))
    if as_json:
        planted = [fault.to_json() for fault in made.planted]
        print_json({"made": made.rows, "planted": planted, "not_planted": made.left_out})
    else:
        _print_made(made, listed=listed)


@selftest.command(name="test-validation")
def test_validation() -> None:
    """Validate the data; fails on blocking findings."""
    with session() as active:
        _test_validation(active)


@selftest.command(name="test-migration")
def test_migration() -> None:
    """Migrate, then roll back, and prove that every table is what it was."""
    with session() as active:
        _test_migration(active)


@selftest.command()
def cleanup() -> None:
    """Remove the sample data, and nothing else."""
    with session() as active:
        _cleanup(active)


COMMANDS: Final = (selftest,)
