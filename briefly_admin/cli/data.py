"""What is known of the data: checks, findings, plans."""

from typing import Final

import click

from briefly_admin.cli.printing import as_json, print_json, print_table
from briefly_admin.cli.runs import print_findings
from briefly_admin.cli.session import Session, session
from briefly_admin.domain.checks import Colour, worst
from briefly_admin.domain.errors import NotFound
from briefly_admin.domain.runs import RunKind
from briefly_admin.plans import PLANS
from briefly_admin.services.exporting import findings_in

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
@click.option("--csv", "form", flag_value="csv", help="CSV on standard output.")
@click.option("--ndjson", "form", flag_value="ndjson", help="A line of JSON a finding.")
def findings(run_id: str | None, *, as_json: bool, form: str | None) -> None:
    """Show what validation found, beside the validation before: of a run, or of the newest that validated."""
    if as_json and form:
        raise click.UsageError(f"--json or --{form}: leave one of them out.")
    with session() as active:
        run_id = run_id or _newest_that_validated(active)
        found = active.services.findings.list(active.actor, run_id)
        trend = active.services.findings.trend(active.actor, run_id)
    if as_json:
        print_json([finding.to_json() for finding in found])
    elif form:
        for line in findings_in(form, found, trend):
            click.echo(line, nl=False)
    else:
        print_findings(found, trend)


def _newest_that_validated(active: Session) -> str:
    kinds = (RunKind.VALIDATION, RunKind.MIGRATION)
    runs = [view for view in active.services.runs.list(active.actor, limit=50) if view.kind in kinds]
    if not runs:
        raise NotFound("Nothing was validated yet.", remedy="Run `briefly-admin validate`.")
    return runs[0].id


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


COMMANDS: Final = (check, findings, plans)
