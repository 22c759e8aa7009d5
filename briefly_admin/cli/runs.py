"""Start, watch and steer runs."""

import json
from typing import Any, Final

import click

from briefly_admin.cli.follow import conclude, follow, workers
from briefly_admin.cli.session import Session, as_json, at, print_json, print_table, session
from briefly_admin.domain.actions import Action
from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.domain.findings import blocking
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView

_BLOCKING: Final = 3


def parse_config(text: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """`--config JSON` with every `--set name=value` put over it. Raises InvalidRequest."""
    try:
        config = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"--config is not JSON: {error.msg} at character {error.pos}.") from None
    if not isinstance(config, dict):
        raise InvalidRequest("--config must be a JSON object.", remedy="Such as '{\"batchSize\": 500}'.")
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidRequest(f"--set takes name=value, not '{pair}'.", remedy="Such as --set batchSize=500.")
        try:
            config[name] = json.loads(value)
        except json.JSONDecodeError:
            config[name] = value
    return config


def _start(active: Session, kind: RunKind, config: dict[str, Any], *, wait: bool, json_lines: bool) -> RunView:
    view = active.services.runs.start(active.actor, kind, config=config)
    if wait:
        return follow(active, view.id, json_lines=json_lines)
    if json_lines:
        print_json(view.status_json())
    else:
        click.echo(f"Run {view.number} ({view.id}) is {view.state}.")
    return view


@click.command()
@click.option("--config", help="RunConfig as a JSON object.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="One field of it, e.g. batchSize=500.")
@click.option("--wait/--no-wait", default=True, help="Follow the run to its end (the default).")
@as_json
def run(config: str | None, pairs: tuple[str, ...], *, wait: bool, as_json: bool) -> None:
    """Start a migration."""
    with session() as active:
        view = _start(active, RunKind.MIGRATION, parse_config(config, pairs), wait=wait, json_lines=as_json)
        if wait:
            conclude(view, json_lines=as_json)


@click.command()
@as_json
def validate(*, as_json: bool) -> None:
    """Validate the data; exit 3 if something blocks a migration."""
    with session() as active:
        view = _start(active, RunKind.VALIDATION, {}, wait=True, json_lines=False)
        findings = active.services.findings.list(active.actor, view.id)
        if as_json:
            print_json({"id": view.id, "valid": not blocking(findings), "findings": [f.to_json() for f in findings]})
        elif view.state is RunState.COMPLETED:
            print_findings(findings)
        conclude(view, json_lines=as_json)
        if blocking(findings):
            raise click.exceptions.Exit(_BLOCKING)


def print_findings(findings: Any) -> None:
    """A table of findings, the blocking ones first."""
    print_table(
        ("class", "table", "field", "rule", ">rows", "what"),
        ((f.finding_class, f.table, f.field, f.rule, f"{f.count:,}", f.message) for f in findings),
        empty="Nothing was found.",
    )


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@as_json
def status(run_id: str | None, *, as_json: bool) -> None:
    """Show a run, or the last ones."""
    with session() as active:
        if run_id is None:
            _list(active, as_json=as_json)
            return
        view = active.services.runs.get(active.actor, run_id)
        if as_json:
            print_json(view.status_json())
            return
        click.echo(f"Run {view.number} ({view.id}), {view.kind}: {view.sentence}")
        print_table(
            ("phase", "state", "began", "ended"),
            ((p.phase, p.state, at(p.started_at), at(p.finished_at)) for p in view.phases),
            empty="",
        )


def _list(active: Session, *, as_json: bool) -> None:
    views = active.services.runs.list(active.actor, limit=20)
    if as_json:
        print_json([view.status_json() for view in views])
        return
    print_table(
        (">#", "kind", "state", ">rows", "began", "by", "id"),
        ((v.number, v.kind, v.state, f"{v.records_processed:,}", at(v.started_at), v.created_by, v.id) for v in views),
        empty="There are no runs yet. Start one with `briefly-admin run`.",
    )


def _steering(action: Action, words: str) -> click.Command:
    @click.command(name=str(action), help=words)
    @click.argument("run_id", metavar="RUN")
    @as_json
    def steer(run_id: str, *, as_json: bool) -> None:
        with session() as active:
            view = getattr(active.services.runs, str(action))(active.actor, run_id)
            if action is Action.RESUME and not workers(active):
                conclude(follow(active, view.id, json_lines=as_json), json_lines=as_json)
            elif as_json:
                print_json(view.status_json())
            else:
                click.echo(view.sentence)

    return steer


COMMANDS: Final = (
    run,
    validate,
    status,
    _steering(Action.PAUSE, "Pause a run at the end of its batch."),
    _steering(Action.RESUME, "Go on with a run from its last batch."),
    _steering(Action.CANCEL, "Cancel a run at the end of its batch."),
)
