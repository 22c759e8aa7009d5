"""A row as its page shows it: what is wrong first, the rest below it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import url_for

from briefly_admin.domain.corrections import ShownRow
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.web.parts import Problem
from briefly_admin.web.row_forms import Control

_LABELS: Final = (("/quarantine", "Quarantine"), ("/findings", "Findings"), ("/fix", "Fix"))


@dataclass(frozen=True, slots=True)
class RowState:
    """What is left to cure, as `rows/_row_state.html` says it."""

    fields: tuple[str, ...]
    faults: tuple[str, ...]
    typed: bool = False
    """Of values that are typed and not saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPage:
    """What `rows/show.html` prints. `wrong` are asked for at once, `others` are folded away, `fixed` only shown."""

    title: str
    key: tuple[str, ...]
    version: str
    save_url: str
    check_url: str
    skip_url: str
    unskip_url: str
    back_url: str
    """'' where nobody knows where one came from."""
    leave_url: str
    leave_label: str
    corrects: bool
    skipped: str
    """The reason for which it is left alone, or ''."""
    state: RowState
    wrong: tuple[Control, ...]
    others: tuple[Control, ...]
    others_open: bool
    fixed: tuple[Control, ...]
    problem: Problem | None
    moved: bool
    """Somebody else changed it while this was typed."""
    refused: bool
    """Something was wrong with what was typed."""


def row_page(
    row: ShownRow, form: Sequence[Control], actor: Actor, *, back: str, skipped: str = "",
    problem: Problem | None = None, moved: bool = False, faults: Mapping[str, Sequence[str]] | None = None,
) -> RowPage:  # fmt: skip
    """The page of one row; `faults` beside a field replace those that it has as it stands."""
    known = {control.name for control in form}
    of_row = [text for name, texts in (faults or {}).items() if name not in known for text in texts]
    asked = [control for control in form if control.widget != "fixed"]
    corrects = actor.may(Permission.CORRECT)
    # Whoever may not change anything reads all of it in one list.
    shown = [control for control in form if control.widget == "fixed" or not corrects]
    wrong = tuple(control for control in asked if control.faults) if corrects else ()
    others = tuple(control for control in asked if not control.faults) if corrects else ()
    address: dict[str, Any] = {"table": row.table, "key": list(row.key)}
    return RowPage(
        title=row.table,
        key=row.key,
        version=row.version,
        save_url=url_for("rows.save", **address),
        check_url=url_for("rows.check", **address),
        skip_url=url_for("rows.skip", **address) if corrects else "",
        unskip_url=url_for("rows.unskip", **address) if corrects else "",
        back_url=back,
        leave_url=back or url_for("quarantine.index"),
        leave_label=next((words for part, words in _LABELS if part in back.partition("?")[0]), "Back")
        if back
        else "Quarantine",
        corrects=corrects,
        skipped=skipped,
        state=RowState(tuple(control.name for control in form if control.faults), (*row.faults, *of_row)),
        wrong=wrong,
        others=others,
        others_open=not wrong or any(control.now is not None for control in others),
        fixed=tuple(shown),
        problem=problem,
        moved=moved,
        refused=bool(faults),
    )
