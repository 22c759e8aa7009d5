"""Each macro renders alone, from plain values, and strictly: a value that is missing is an error."""

import re
from datetime import timedelta
from typing import Any

import pytest
from jinja2 import UndefinedError
from werkzeug.datastructures import MultiDict
from wtforms import (
    BooleanField,
    Form,
    HiddenField,
    IntegerField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
)
from wtforms.validators import InputRequired, NumberRange, Optional

from briefly_admin.domain.checks import Check, Colour
from briefly_admin.domain.runs import RunState
from briefly_admin.web import parts
from tests.web.rendering import HOSTILE, NOW, Page, strict_environment


@pytest.fixture
def render() -> Any:
    environment = strict_environment()

    def render(component: str, macro: str, source: str, **values: Any) -> Page:
        text = f'{{% from "components/_{component}.html" import {macro} %}}{source}'
        return Page(environment.from_string(text).render(**values))

    return render


def test_an_icon_is_decoration_from_the_sprite(render: Any) -> None:
    page = render("icon", "icon", "{{ icon('check') }}")
    assert page.one("svg").attributes["aria-hidden"] == "true"
    assert page.one("use").attributes["href"] == "/static/vendor/tabler-icons/sprite.svg#tabler-check"


@pytest.mark.parametrize("state", RunState)
def test_every_state_has_icon_word_and_colour(render: Any, state: RunState) -> None:
    page = render("status", "status", "{{ status(state) }}", state=state)
    badge = page.all[0]
    assert re.fullmatch(r"badge tone-(good|warn|bad|info|neutral)", badge.attributes["class"] or "")
    assert badge.text.strip("…") in state.value.replace("_", " ")
    assert page.one("use").attributes["href"] != "/static/vendor/tabler-icons/sprite.svg#tabler-circle"


def test_an_unheard_of_state_reads_as_its_own_word_and_is_escaped(render: Any) -> None:
    assert render("status", "status", "{{ status('half_done') }}").all[0].text == "half done"
    assert not render("status", "status", "{{ status(state) }}", state=HOSTILE).every("script")
    assert render("status", "status", "{{ status('green', '17 green') }}").all[0].text == "17 green"


def test_a_time_is_relative_and_exact_on_hover(render: Any) -> None:
    page = render("time", "time", "{{ time(then|moment) }}", then=NOW - timedelta(hours=2))
    element = page.one("time", datetime="2025-11-22T13:00:00Z", title="2025-11-22 13:00:00 UTC")
    assert element.text == "2 h ago"
    assert render("time", "time", "{{ time(none, 'never') }}").all[0].text == "never"


def test_a_bar_has_text_and_aria_values(render: Any) -> None:
    page = render("bar", "bar", "{{ bar(view) }}", view=parts.Bar("Rows of users", 46, 100, "46 %", "good"))
    element = page.one("progress", value="46", max="100", aria_valuetext="46 %", aria_label="Rows of users")
    assert element.text == "46 %"
    assert "style" not in element.attributes


def test_a_bar_with_nothing_to_do_is_done_and_an_unknown_one_says_so(render: Any) -> None:
    assert render("bar", "progress", "{{ progress('Rows', 0, 0, 'done') }}").one("progress", value="1", max="1")
    unknown = render("bar", "progress", "{{ progress('Rows', none, 0, 'counting…') }}").one("progress")
    assert "value" not in unknown.attributes
    assert unknown.attributes["aria-valuetext"] == "counting…"


def test_a_table_stands_in_a_region_that_scrolls_by_keyboard(render: Any) -> None:
    page = render(
        "table", "table",
        "{% call table('Recent runs', [('Run', ''), ('Rows', 'num'), ('Deeds', 'actions')], id='r', stacked=true) %}"
        "<tr><td>42</td></tr>{% endcall %}",
    )  # fmt: skip
    assert page.one("div", role="region", tabindex="0", aria_label="Recent runs", id="r")
    assert [head.text for head in page.every("th", scope="col")] == ["Run", "Rows", "Deeds"]
    assert page.one("th", class_="num").text == "Rows"
    assert page.one("caption").text == "Recent runs"
    assert page.one("td").text == "42"


def _choices(*values: str) -> Any:
    """The type stubs know WTForms 3.2 alone, which took tuples; 3.3 warns of them."""
    return list(values)


class RunForm(Form):
    batch_size = IntegerField("Rows in a batch", [InputRequired(), NumberRange(1, 10_000, "Between 1 and 10,000.")])
    label = StringField("Label", [Optional()], description="Shown in lists.")
    on_invalid = SelectField("Invalid rows", choices=_choices("stop", "skip"))
    rehearse = BooleanField("Rehearse", description="Commits nothing.")
    mode = RadioField("Mode", choices=_choices("exact", "keep"), default="exact")
    tables = SelectMultipleField("Tables", choices=_choices("users", "files"))
    next = HiddenField()


@pytest.fixture
def wrong_form() -> RunForm:
    form = RunForm(MultiDict({"batch_size": "0", "mode": "other", "on_invalid": "stop"}))
    assert not form.validate()
    return form


def test_a_field_ties_label_help_and_errors_to_its_control(render: Any, wrong_form: RunForm) -> None:
    page = render(
        "form", "field", "{{ field(form.batch_size, help='Small ones lock briefly.', max=9) }}", form=wrong_form
    )
    control = page.one("input", id="batch_size", aria_invalid="true", max="9", value="0")
    assert control.attributes["aria-describedby"] == "batch_size-help batch_size-errors"
    assert page.one("label", for_="batch_size").text == "Rows in a batch"
    assert page.one("div", id="batch_size-help").text == "Small ones lock briefly."
    assert page.one("div", id="batch_size-errors").text == "Between 1 and 10,000."


def test_a_field_without_errors_is_not_called_invalid(render: Any) -> None:
    page = render("form", "field", "{{ field(form.label) }}", form=RunForm())
    control = page.one("input", id="label", aria_describedby="label-help")
    assert "aria-invalid" not in control.attributes
    assert page.one("label").text == "Label optional"


def test_each_kind_of_field_has_its_own_control(render: Any) -> None:
    form = RunForm()
    assert render("form", "field", "{{ field(form.on_invalid) }}", form=form).one("select", class_="form-select")
    checkbox = render("form", "field", "{{ field(form.rehearse) }}", form=form)
    assert checkbox.one("input", type="checkbox", aria_describedby="rehearse-help")
    assert checkbox.one("label", for_="rehearse")
    assert len(render("form", "field", "{{ field(form.tables) }}", form=form).every("input", type="checkbox")) == 2
    assert render("form", "field", "{{ field(form.next) }}", form=form).one("input", type="hidden")


def test_choices_are_a_fieldset_with_notes(render: Any) -> None:
    page = render("form", "choices", "{{ choices(form.mode, notes={'keep': 'Edited rows stay.'}) }}", form=RunForm())
    assert page.one("legend").text == "Mode"
    assert page.one("input", type="radio", value="exact").attributes.get("checked", "no") != "no"
    assert page.one("input", value="keep", aria_describedby="mode-1-note")
    assert page.one("div", id="mode-1-note").text == "Edited rows stay."


def test_the_summary_links_each_error_to_an_element_that_exists(render: Any, wrong_form: RunForm) -> None:
    page = render(
        "form",
        "error_summary, field",
        "{{ error_summary(form) }}{% for f in form %}{{ field(f) }}{% endfor %}",
        form=wrong_form,
    )
    assert page.one("div", role="alert")
    ids = {element.attributes.get("id") for element in page.all}
    links = [link.attributes["href"] or "" for link in page.every("a")]
    assert links == ["#batch_size", "#mode"]
    assert {link[1:] for link in links} <= ids
    assert not render("form", "error_summary", "{{ error_summary(form) }}", form=RunForm()).all


def test_a_typed_confirmation_works_with_and_without_javascript(render: Any) -> None:
    page = render(
        "confirm", "typed, confirm_button",
        "<form method=post data-confirm>{{ typed(form.label, word, 'type the name') }}{{ confirm_button('Roll back') }}</form>",
        form=RunForm(), word=HOSTILE,
    )  # fmt: skip
    control = page.one("input", id="label", data_word=HOSTILE, data_missing="type the name", autocomplete="off")
    assert "required" in control.attributes
    button = page.one("button", type="submit", aria_describedby="confirm-missing")
    assert "disabled" not in button.attributes, "without JavaScript the server decides"
    assert page.one("p", id="confirm-missing", role="status").text == ""


def test_phases_say_their_state_in_words(render: Any) -> None:
    steps = [
        parts.Step("Backup", "done", "38 s", "proven"),
        parts.Step("Migrate", "running", "4 min"),
        parts.Step("Verify", "pending"),
    ]
    page = render("phases", "phases", "{{ phases(steps) }}", steps=steps)
    assert [" ".join(item.text.split()) for item in page.every("li")] == [
        "Backup: done 38 s, proven", "Migrate: running 4 min", "Verify: pending",
    ]  # fmt: skip
    assert page.one("li", aria_current="step", class_="phase phase-running")


def test_an_empty_state_says_what_to_do_first(render: Any) -> None:
    page = render("empty", "empty", "{{ empty('No backups', 'Take one.', '/backups', 'Back up now') }}")
    assert page.one("a", href="/backups").text == "Back up now"
    assert not render("empty", "empty", "{{ empty('None', 'All is well.') }}").every("a")


def test_actions_are_forms_links_or_off_with_the_reason(render: Any) -> None:
    buttons = (
        parts.Button("pause", "Pause", "/runs/42/pause"),
        parts.Button("report", "Report", "/runs/42#report", method="get"),
        parts.Button("roll_back", "Roll back", "/x", why_not="There is no backup.", why_url="/backups"),
        parts.Button("cancel", "Cancel", "/runs/42/cancel", style="danger", confirm="Cancel it?"),
    )
    page = render("actions", "actions", "{{ actions(items) }}", items=buttons)
    pause, cancel = page.every("form", method="post")
    assert pause.attributes["action"] == "/runs/42/pause"
    assert "hx-confirm" not in pause.attributes
    assert cancel.attributes["hx-confirm"] == "Cancel it?"
    assert len(page.every("input", type="hidden", name="csrf_token", value="a-token")) == 2
    assert page.one("button", name="action", value="cancel").attributes["class"] == "btn btn-danger"
    assert page.one("a", href="/runs/42#report")
    assert not [form for form in page.every("form") if form.attributes["action"] == "/x"]
    assert page.one("span", class_="action-why").text.strip() == "There is no backup. Solve it"
    assert page.one("a", href="/backups")


def test_a_page_header_has_the_only_h1(render: Any) -> None:
    page = render(
        "page_header", "page_header", "{% call page_header('Run 42', 'of db', '/', 'Overview') %}<b>x</b>{% endcall %}"
    )
    assert page.one("h1").text == "Run 42"
    assert page.one("a", href="/").text == "Overview"
    assert page.one("b").ancestors[-1].attributes["class"] == "page-head-actions"
    assert not render("page_header", "page_header", "{{ page_header('Audit') }}").every("a")


def test_pagination_leaves_out_what_is_not_there(render: Any) -> None:
    page = render("pagination", "pagination", "{{ pagination('1–50', '', '/audit?after=9&x=1') }}")
    assert page.one("a", rel="next", href="/audit?after=9&x=1")
    assert page.one("nav", aria_label="Pages")
    assert not page.every("a", rel="prev")


def test_checks_have_colour_word_and_remedy(render: Any) -> None:
    items = [
        Check("a", "It answers", Colour.GREEN, "3 ms"),
        Check("b", "No locks", Colour.RED, HOSTILE, "End pid 8123."),
    ]
    page = render("checks", "checks", "{{ checks(items) }}", items=items)
    green, red = page.every("li")
    assert green.attributes["class"] == "check check-green"
    assert "green" in green.text
    assert "What to do" not in green.text
    assert "red" in red.text
    assert "What to do: End pid 8123." in red.text
    assert not page.every("script")


def test_messages_stand_in_a_live_region_that_is_always_there(render: Any) -> None:
    page = render("flash", "flashes", "{{ flashes([('error', 'No.'), ('odd', 'Hm.')]) }}")
    assert page.one("div", role="status", aria_live="polite")
    assert len(page.every("div", class_="alert tone-bad")) == 1
    assert len(page.every("div", class_="alert tone-info")) == 1
    assert render("flash", "flashes", "{{ flashes([]) }}").one("div", role="status")


def test_a_missing_value_is_an_error(render: Any) -> None:
    with pytest.raises(UndefinedError):
        render("page_header", "page_header", "{{ page_header(nothing) }}")
