"""Start, watch and steer runs."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from briefly_admin.cli.follow import conclude, follow, workers
from briefly_admin.cli.printing import as_json, at, counted, one_line, print_json, print_table
from briefly_admin.cli.session import Session, session
from briefly_admin.domain.actions import Action
from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.domain.findings import Finding, blocking
from briefly_admin.domain.runs import LED, RunKind, RunState
from briefly_admin.services.approving import APPROVAL
from briefly_admin.services.exporting import finding_json
from briefly_admin.services.finding_views import Trend
from briefly_admin.services.sentences import at_work, held_back, next_try
from briefly_admin.services.views import RunView

_BLOCKING: Final = 3
_LISTED: Final = 20
_FIRST: Final = Trend(None)
_GOES_ON: Final = frozenset({Action.APPROVE, Action.RESUME})
"""What lets a run begin or go on: it is led here where no worker listens."""


def parse_config(text: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """`--config JSON` with every `--set name=value` put over it. Raises InvalidRequest."""
    try:
        config = {} if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"--config is not JSON: {error.msg} at character {error.pos}.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("--config is not JSON of reasonable size.") from None
    if not isinstance(config, dict):
        raise InvalidRequest("--config must be a JSON object.", remedy="Such as '{\"batchSize\": 500}'.")
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidRequest(f"--set takes name=value, not '{pair}'.", remedy="Such as --set batchSize=500.")
        config[name] = _value(value)
    return config


def _value(text: str) -> Any:
    """JSON where it is, else the text itself: `--set onInvalid=skip` needs no quotes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@click.command()
@click.option("--config", metavar="JSON", help="RunConfig as a JSON object.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="One field of it, e.g. batchSize=500.")
@click.option("--wait/--no-wait", default=True, help="Follow the run to its end (the default).")
@as_json
def run(config: str | None, pairs: tuple[str, ...], *, wait: bool, as_json: bool) -> None:
    """Start a migration."""
    with session() as active:
        view = active.services.runs.start(active.actor, RunKind.MIGRATION, config=parse_config(config, pairs))
        if wait:
            conclude(follow(active, view.id, json_lines=as_json), json_lines=as_json)
        else:
            print_state(view, as_json=as_json)


@click.command()
@as_json
def validate(*, as_json: bool) -> None:
    """Validate the data; exit 3 if something blocks a migration."""
    with session() as active:
        started = active.services.runs.start(active.actor, RunKind.VALIDATION)
        view = follow(active, started.id, json_lines=as_json)
        done = view.state is RunState.COMPLETED
        findings, trend = _found(active, view.id) if done else ((), _FIRST)
        stops = blocking(findings)
        if as_json:
            listed = [finding.to_json() for finding in findings]
            print_json({"id": view.id, "valid": not stops if done else None, "findings": listed})
        elif done:
            print_findings(findings, trend)
        conclude(view, json_lines=as_json)
        if stops:
            click.echo(f"{counted(len(stops), 'finding blocks', 'findings block')} a migration.", err=True)
            raise click.exceptions.Exit(_BLOCKING)


def _found(active: Session, run_id: str) -> tuple[tuple[Finding, ...], Trend]:
    findings = active.services.findings
    return findings.list(active.actor, run_id), findings.trend(active.actor, run_id)


def print_findings(findings: Sequence[Finding], trend: Trend = _FIRST) -> None:
    """A table of findings, the blocking ones first, beside those of the validation before; then what is gone since."""
    told = [finding_json(finding, trend) for finding in findings]
    before = () if trend.number is None else (f">run {trend.number}",)
    print_table(
        ("class", "table", "field", "rule", ">rows", *before, "what"),
        (
            (f["class"], f["table"], f["field"], f["rule"], f"{f['count']:,}", *_before(f["before"]), f["message"])
            for f in told
        ),
        empty="Nothing was found.",
    )
    for finding in trend.gone:
        click.echo(f"Gone since run {trend.number}: {one_line(finding.message)} ({counted(finding.count, 'row')}).")


def _before(count: int | None) -> tuple[str, ...]:
    return () if count is None else (f"{count:,}",)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@as_json
def status(run_id: str | None, *, as_json: bool) -> None:
    """Show a run (by its number or id), or the last ones."""
    with session() as active:
        if run_id is None:
            _list(active, as_json=as_json)
            return
        view = active.services.runs.get(active.actor, run_id)
        if as_json:
            print_json(view.status_json() | view.work_json())
            return
        click.echo(f"Run {view.number} ({view.id}), {view.kind} of {view.target_title}, {view.state}.")
        click.echo(view.sentence)
        for line in (*_what_waits(view), *_how_it_goes(view)):
            click.echo(line)
        if view.backup_name:
            click.echo(f"Backup: {view.backup_name}")
        print_table(
            ("phase", "state", "began", "ended"),
            ((p.phase, p.state, at(p.started_at), at(p.finished_at)) for p in view.phases),
            empty="",
        )


def _what_waits(view: RunView) -> Iterator[str]:
    """What another admin is to approve."""
    if view.state is RunState.AWAITING_APPROVAL and APPROVAL in view.options:
        names = view.options[APPROVAL]["names"]
        what = f"{names['kind']} of {names['target']} by the plan {names['plan']} ({names['fingerprint'][:12]}…)"
        if names["backup"]:
            what += f" to {names['backup']}, {names['mode']}, {', '.join(names['tables'] or ['all tables'])}"
        if view.options.get("allow"):
            what += f", rows of {', '.join(view.options['allow'])} may be touched"
        for name, how in (view.options.get("rules") or {}).items():
            what += f", {name}: {how.replace('_', ' ')}"
        if settled := sum(map(len, (view.options.get("settled") or {}).values())):
            what += f", {counted(settled, 'row', 'rows')} settled one by one"
        reason = view.options.get("reason")
        yield one_line(f"To approve: {what}{f'; reason: {reason}' if reason else ''}.")


def _how_it_goes(view: RunView) -> Iterator[str]:
    """What it waits for and until when, the circuit breaker, workers and batch size: each where there is something."""
    held = held_back(view.breaker, view.waiting)
    if view.progress and view.state in LED:
        when = next_try(view.progress, datetime.now(UTC)) if view.waiting else ""
        if when:
            yield f"Waiting: {when}."
        work = at_work(view.progress, int(view.config.get("workers", 1)))
        if work:
            yield f"At work: {work}."
    if held:
        yield held


def _list(active: Session, *, as_json: bool) -> None:
    views = active.services.runs.list(active.actor, limit=_LISTED)
    if as_json:
        print_json([view.status_json() for view in views])
        return
    print_table(
        (">run", "kind", "state", ">rows", "began", "by"),
        ((v.number, v.kind, v.state, f"{v.records_processed:,}", at(v.started_at), v.created_by) for v in views),
        empty="There are no runs yet. Start one with `briefly-admin run`.",
    )


def print_state(view: RunView, *, as_json: bool) -> None:
    """The run in a sentence, or its MigrationStatus."""
    if as_json:
        print_json(view.status_json())
    else:
        click.echo(f"Run {view.number} ({view.id}): {view.sentence}")


def _steering(action: Action, words: str) -> click.Command:
    @click.command(name=str(action), help=words)
    @click.argument("run_id", metavar="RUN")
    @as_json
    def steer(run_id: str, *, as_json: bool) -> None:
        with session() as active:
            view = getattr(active.services.runs, str(action))(active.actor, run_id)
            if action in _GOES_ON and view.state is RunState.PENDING and not workers(active):
                conclude(follow(active, view.id, json_lines=as_json), json_lines=as_json)
            else:
                print_state(view, as_json=as_json)

    return steer


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--config", metavar="JSON", help="Settings as a JSON object.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="One of them, e.g. batchSize=auto.")
@as_json
def change(run_id: str, config: str | None, pairs: tuple[str, ...], *, as_json: bool) -> None:
    """Change batchSize, workers or pause of a running or paused run, from the next batch on."""
    with session() as active:
        view = active.services.runs.change(active.actor, run_id, parse_config(config, pairs))
        print_state(view, as_json=as_json)


COMMANDS: Final = (
    run,
    validate,
    status,
    _steering(Action.APPROVE, "Let begin what another admin asked for; lead it here where no worker listens."),
    _steering(Action.PAUSE, "Pause a run at the end of its batch."),
    _steering(Action.RESUME, "Go on with a run from its last batch; lead it here where no worker listens."),
    _steering(Action.CANCEL, "Cancel a run at the end of its batch."),
    change,
)
