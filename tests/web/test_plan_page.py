"""The plan above the form of a new run: its checks, and which of them are slow."""

from briefly_admin.services.views import PlanCheck, PlanTable, PlanView
from briefly_admin.web.plan_page import NewRunPage, checks_of, slow_of
from tests.serving import ClientAs
from tests.web.browsing import look
from tests.web.rendering import HOSTILE, Page, strict_environment


def plan_of(*checks: PlanCheck) -> PlanView:
    table = PlanTable("users", 3, 8192, (), checks)
    return PlanView("people", "People", "Own code.", "here", (table,), (), 3, 8192, None, None, {})


def rendered(view: PlanView) -> Page:
    page = NewRunPage(view, (), None, checks_of(view), slow_of(view))
    return Page(strict_environment().get_template("runs/_plan.html").render(page=page))


EXACT = PlanCheck("id", "null", "must not be missing", "exact")
SOUND = PlanCheck("email", "email", "must be an e-mail address", "sound")
SLOW = PlanCheck("nickname", "polite", "is not valid", "python", "a validator of the plan's own code")


def test_checks_that_only_python_can_do_are_named_before_the_others() -> None:
    page = rendered(plan_of(EXACT, SOUND, SLOW))
    (sentence,) = page.every("li")
    assert sentence.text == (
        "users.nickname (polite): a validator of the plan's own code; each row of users is read for it."
    )
    assert not [each for each in sentence.ancestors if each.tag == "details"], "stands open"
    lines = {dt.text: dd.text for dt, dd in zip(page.every("dt"), page.every("dd"), strict=True)}
    assert lines["id"] == "must not be missing"
    assert lines["email"] == "must be an e-mail address (unusual values are judged in Python)"
    assert lines["nickname"] == "is not valid (judged in Python, row by row)"
    details = page.one("details", id="plan-checks")
    assert "open" not in details.attributes


def test_a_schema_that_looks_at_whole_rows_is_named_so() -> None:
    whole = PlanCheck("", "schema", "must satisfy the record schema", "python", "the schema looks at rows as a whole")
    assert slow_of(plan_of(whole)) == (
        "users as a whole (schema): the schema looks at rows as a whole; each row of users is read for it.",
    )
    assert rendered(plan_of(whole)).one("dt").text == "the row as a whole"


def test_a_plan_without_such_checks_says_nothing_of_them() -> None:
    page = rendered(plan_of(EXACT, SOUND))
    assert not page.every("ul", id="slow-checks")
    assert page.one("details", id="plan-checks")
    assert not rendered(plan_of()).every("details", id="plan-checks")


def test_names_of_a_plan_are_shown_as_text() -> None:
    page = rendered(plan_of(PlanCheck(HOSTILE, HOSTILE, HOSTILE, "python", HOSTILE)))
    assert not page.every("script")
    assert HOSTILE in page.one("ul", id="slow-checks").text


def test_the_page_of_a_new_run_has_the_checks_of_each_table(client_as: ClientAs, sample_data: dict[str, int]) -> None:
    assert sample_data
    details = look(client_as("operator"), "/runs/new").one("details", id="plan-checks")
    for words in ("users", "must be an e-mail address (unusual values", "must be one of: user, assistant",
                  "reported: chunks whose user is not the owner"):  # fmt: skip
        assert words in " ".join(details.text.split())
