"""Dates, times and moments: native columns by their bounds, texts by their usual forms."""

from typing import Final

from psycopg import sql

from briefly_admin.engine.compiler import forms
from briefly_admin.engine.compiler.answers import ALWAYS, FALSE, NEVER, Answer
from briefly_admin.engine.compiler.views import View
from briefly_admin.plans.judging import FieldSpec

_YEARS: Final = "({v} >= {low}::{cast} AND {v} < {high}::{cast})"
"""±infinity, BC and years above 9999 are no Python dates."""
_ISO: Final = {"iso", "iso8601"}
_RFC: Final = {"rfc", "rfc822"}
_STAMPS: Final = {"timestamp", "timestamp_ms"}
_NUMBERS: Final = {"loose_integer", "float", "decimal", "duration"}


def temporal(spec: FieldSpec, view: View) -> Answer | None:  # noqa: PLR0911 - a table of cases
    """Of a native date, time or moment; None: see its text."""
    if spec.kind == "identifier":
        return ALWAYS
    if spec.kind in _NUMBERS and not spec.special:
        return NEVER
    if spec.form not in _ISO:
        return None
    if spec.kind == "date" and view.kind in {"date", "moment"}:
        return NEVER if view.kind == "moment" else _within_years(view)
    if spec.kind == "time" and view.kind == "time":
        return Answer(view.format("({v}::time < '24:00:00')"), exact=False)
    if spec.kind != "moment" or view.kind == "time":
        return None
    has_offset = view.type_name == "timestamptz"
    if spec.aware is not None and spec.aware != has_offset:
        return NEVER
    if spec.adapted and has_offset:  # the offset is taken away, which may leave the years that there are
        return _within_years(view, "0002-01-01", "9999-01-01", exact=False)
    return _within_years(view)


def _within_years(view: View, low: str = "0001-01-01", high: str = "10000-01-01", *, exact: bool = True) -> Answer:
    moment = "" if view.kind == "date" else " 00:00:00+00"
    cast = sql.SQL(view.type_name)  # one of the native names
    return Answer(view.format(_YEARS, low=sql.Literal(low + moment), high=sql.Literal(high + moment), cast=cast), exact)


def moment_of_text(spec: FieldSpec, text: sql.Composable) -> Answer:
    """Of a text: its usual form surely passes."""
    form = text_form(spec)
    if form is None:
        return Answer(FALSE, exact=False, why=f"only Python reads the format {spec.form!r} here")
    test = sql.SQL("({} ~ {})").format(text, sql.Literal(form))
    if spec.kind == "moment" and spec.form in _STAMPS:
        test = sql.SQL("(length({}) <= 11 AND {})").format(text, test)
    if spec.adapted:  # an offset that is taken away may leave the years that there are
        test = sql.SQL("({} AND {} !~ '^(0001|9999)')").format(test, text)
    return Answer(test, exact=False)


def text_form(spec: FieldSpec) -> str | None:
    """An expression for the usual texts of such a field; None where none is known."""
    if spec.kind == "date":
        return forms.DATE if spec.form in _ISO else forms.of_format(spec.form)
    if spec.kind == "time":
        return forms.TIME if spec.form in _ISO else forms.of_format(spec.form)
    if spec.form in _ISO:
        return forms.MOMENT if spec.aware is None else forms.AWARE if spec.aware else forms.NAIVE
    if spec.form in _RFC:
        return None if spec.aware is False or spec.adapted else forms.RFC
    if spec.form in _STAMPS:
        return None if spec.aware else r"^[0-9]+$"
    return None if spec.aware else forms.of_format(spec.form)
