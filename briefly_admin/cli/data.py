"""What is known of the data: checks, findings, quarantine, plans."""

from typing import Final

import click

from briefly_admin.cli.printing import as_json, print_json, print_table
from briefly_admin.cli.runs import print_findings
from briefly_admin.cli.session import session
from briefly_admin.domain.checks import Colour, worst
from briefly_admin.domain.errors import NotFound
from briefly_admin.domain.runs import RunKind
from briefly_admin.plans import PLANS

_REFUSED: Final = 4
_MARKS: Final = {Colour.GREEN: "green", Colour.AMBER: "AMBER", Colour.RED: "RED"}


@click.command()
@as_json
def check(*, as_json: bool) -> None:
    """Preflight: is everything in place? Exit 4 if a check is red."""
    with session() as active:
        checks = active.services.checks.run(active.actor)
    if as_json:
        print_json({"colour": worst(checks), "checks": [c.to_json() for c in checks]})
    else:
        print_table(
            ("state", "check", "found", "remedy"),
            ((_MARKS[c.colour], c.title, c.found, c.remedy) for c in checks),
            empty="",
        )
    if worst(checks) is Colour.RED:
        raise click.exceptions.Exit(_REFUSED)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@as_json
def findings(run_id: str | None, *, as_json: bool) -> None:
    """Show what validation found: of a run, or of the newest that validated."""
    with session() as active:
        if run_id is None:
            kinds = (RunKind.VALIDATION, RunKind.MIGRATION)
            runs = [v for v in active.services.runs.list(active.actor, limit=50) if v.kind in kinds]
            if not runs:
                raise NotFound("Nothing was validated yet.", remedy="Run `briefly-admin validate`.")
            run_id = runs[0].id
        found = active.services.findings.list(active.actor, run_id)
    if as_json:
        print_json([finding.to_json() for finding in found])
    else:
        print_findings(found)


@click.group()
def quarantine() -> None:
    """Rows that a run left alone."""


@quarantine.command(name="list")
@click.argument("run_id", metavar="RUN")
@as_json
def quarantine_list(run_id: str, *, as_json: bool) -> None:
    """Show the quarantined rows of a run, each with its reason."""
    with session() as active:
        rows = active.services.findings.quarantine(active.actor, run_id)
    if as_json:
        print_json([{"table": r.table, "key": list(r.key), "cause": r.cause, "message": r.message} for r in rows])
    else:
        print_table(
            ("table", "key", "cause", "why"), ((r.table, ", ".join(r.key), r.cause, r.message) for r in rows),
            empty="The run left no row alone.",
        )  # fmt: skip


@click.command()
@as_json
def plans(*, as_json: bool) -> None:
    """List the plans this program knows."""
    if as_json:
        print_json([{"name": p.name, "title": p.title, "summary": p.summary} for p in PLANS.values()])
    else:
        print_table(
            ("plan", "title", "summary"), ((p.name, p.title, p.summary) for p in PLANS.values()), empty="No plans."
        )


COMMANDS: Final = (check, findings, quarantine, plans)
