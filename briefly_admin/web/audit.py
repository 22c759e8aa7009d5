"""The page Audit: who did what to what, when, from where; whether the chain holds; and all of it as a file."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from flask import Blueprint, Response, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import Form, StringField

from briefly_admin.domain.audit import AuditEvent
from briefly_admin.domain.errors import NotFound
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.web.identity import services
from briefly_admin.web.parts import Button
from briefly_admin.web.paths import page_path

blueprint: Final = Blueprint("audit", __name__)
_PAGE: Final = 50
_LARGEST: Final = 2**63 - 1
_INLINE: Final = 60
"""Characters of details that stand in the row itself."""
_COLUMNS: Final = tuple(AuditEvent.__dataclass_fields__)
_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_RUN: Final = re.compile(r"run (\d{1,18})")
_BACKUP: Final = re.compile(r"backup_\d{1,20}")
_FILTERS: Final = ("actor", "action", "object")


class AuditFilter(Form):
    """Which events; empty fields do not count."""

    actor = StringField("Who", description="A part of the name.")
    action = StringField("What", description="run.start, or all of a noun: run.")
    object = StringField("On what", description="A part: run 42.")

    def wanted(self) -> dict[str, Any]:
        """The fields that are filled in, as a URL carries them."""
        texts = {name: (self[name].data or "").replace("\0", "").strip() for name in _FILTERS}
        return {name: text for name, text in texts.items() if text}


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An event; `details` is one line, `long` if it is better folded away."""

    number: int
    at: datetime
    actor: str
    role: str
    via: str
    address: str
    action: str
    object: str
    object_url: str
    details: str
    long: bool


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of events, newest first, and the ways to its neighbours."""

    rows: tuple[AuditRow, ...]
    filtered: bool
    newest_url: str
    older_url: str
    range: str
    verify: Button
    exports: tuple[Button, ...]


@blueprint.get("/audit")
@requires(Permission.READ)
def index() -> ResponseReturnValue:
    """The newest events, or those before `?before=`."""
    form = AuditFilter(request.args)
    wanted, before = form.wanted(), _before(request.args.get("before", ""))
    events = services().audit.list(
        g.actor, limit=_PAGE + 1, before=before, actor_name=wanted.get("actor"), action=wanted.get("action"),
        object=wanted.get("object"),
    )  # fmt: skip
    return render_template("audit/index.html", page=_page(events, wanted, before), form=form)


@blueprint.post("/audit/verify")
@requires(Permission.READ)
def verify() -> ResponseReturnValue:
    """Walk the whole chain, and say what was found."""
    verdict = services().audit.verify(g.actor)
    where = "at its head" if not verdict.broken_at else f"at event {verdict.broken_at:,}"
    flash(
        verdict.message if verdict.ok else f"The chain is broken {where}. {verdict.message}",
        "success" if verdict.ok else "error",
    )
    return redirect(url_for(".index"), 303)


@blueprint.get("/audit/export.<kind>")
@requires(Permission.EXPORT_AUDIT)
def export(kind: str) -> ResponseReturnValue:
    """Every event, oldest first, streamed as CSV or JSON."""
    written = {"csv": (_csv, "text/csv"), "json": (_json, "application/json")}.get(kind)
    if written is None:
        raise NotFound("The log is exported as csv or json.", remedy="Use the buttons on the page Audit.")
    write, mimetype = written
    name = f"audit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(write(services().audit.export(g.actor)), mimetype=mimetype, headers=headers)


def _before(text: str) -> int | None:
    """An event's number, as it can be."""
    number = int(text) if re.fullmatch(r"[0-9]{1,19}", text) else 0
    return number if 0 < number <= _LARGEST else None


def _page(events: tuple[AuditEvent, ...], wanted: dict[str, Any], before: int | None) -> AuditPage:
    rows = tuple(_row(event) for event in events[:_PAGE])
    older = {**wanted, "before": str(rows[-1].number)} if len(events) > _PAGE else {}
    exports = tuple(
        Button(kind, f"Export {kind.upper()}", url_for("audit.export", kind=kind), "get", icon="download")
        for kind in ("csv", "json")
        if g.actor.may(Permission.EXPORT_AUDIT)
    )
    return AuditPage(
        rows=rows, filtered=bool(wanted), newest_url=url_for("audit.index", **wanted) if before else "",
        older_url=url_for("audit.index", **older) if older else "",
        range=f"Events {rows[-1].number:,} to {rows[0].number:,}" if rows else "",
        verify=Button("verify", "Verify the chain", url_for("audit.verify"), icon="shield-check"), exports=exports,
    )  # fmt: skip


def _row(event: AuditEvent) -> AuditRow:
    details = "; ".join(f"{name}: {_text(value)}" for name, value in event.details.items())
    return AuditRow(
        event.number, event.at, event.actor, event.role, event.via, event.address, event.action, event.object,
        _url(event.object), details, len(details) > _INLINE,
    )  # fmt: skip


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _url(name: str) -> str:
    """The page of what an event is about, where it has one."""
    run = _RUN.fullmatch(name)
    if run:
        return page_path(f"/runs/{run[1]}")
    return url_for("backups.show", name=name) if _BACKUP.fullmatch(name) else ""


def _plain(event: AuditEvent) -> dict[str, object]:
    return asdict(event) | {"at": event.at.isoformat()}


def _json(events: Iterable[AuditEvent]) -> Iterator[str]:
    """One array, an event a line; without its end the file is no JSON, so that a torn download shows."""
    before = "[\n"
    for event in events:
        yield before + json.dumps(_plain(event), ensure_ascii=False)
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def _csv(events: Iterable[AuditEvent]) -> Iterator[str]:
    """With a heading; cells that a spreadsheet would take for a formula begin with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for event in events:
        cells = _plain(event) | {"details": json.dumps(event.details, ensure_ascii=False, sort_keys=True)}
        writer.writerow([_cell(cells[name]) for name in _COLUMNS])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _cell(value: object) -> str:
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) else text
