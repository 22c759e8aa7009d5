"""A row by hand on its page: what is wrong, checked as somebody types, saved, refused, left alone; and by whom."""

from collections.abc import Iterator

import psycopg
import pytest
from flask.testing import FlaskClient

from briefly_admin.engine import fence
from briefly_admin.settings import Settings
from tests.quarantined import break_emails, email_of
from tests.serving import NOBODY, ClientAs
from tests.web.browsing import inline_scripts, look, send
from tests.web.rendering import HOSTILE, Page

SECRET = "ya29.a-token-nobody-may-see"


@pytest.fixture
def target(settings: Settings, sample_data: dict[str, int]) -> Iterator[psycopg.Connection]:
    assert sample_data
    with psycopg.connect(settings.target_database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def broken(settings: Settings, target: psycopg.Connection) -> str:
    """The key of a user whose e-mail is none."""
    assert target
    return break_emails(settings.target_database_url, 1)[0]


@pytest.fixture
def operator(client_as: ClientAs) -> FlaskClient:
    return client_as("operator")


def filled(page: Page) -> dict[str, str]:
    """The row's form as a browser would send it: every line end as CR LF, and no line end in a line."""
    form = page.one("form", id="row")
    sent = {}
    for element in page.all:
        name = element.attributes.get("name")
        if form not in element.ancestors or not name:
            continue
        if element.tag == "textarea":
            # A browser leaves out the first line end of a box.
            sent[name] = element.text.removeprefix("\n").replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
        elif element.attributes.get("type") == "checkbox":
            sent |= {name: "y"} if "checked" in element.attributes else {}
        elif element.tag == "select":
            options = [each for each in page.every("option") if element in each.ancestors]
            chosen = [each for each in options if "selected" in each.attributes] or options
            sent[name] = chosen[0].attributes["value"] or ""
        else:
            sent[name] = (element.attributes.get("value") or "").replace("\n", "")
    return sent


def below(page: Page, column: str) -> str:
    """What is said below a field."""
    (control,) = [each for each in page.all if each.attributes.get("name") == f"value-{column}"]
    return page.one("div", id=control.attributes["aria-describedby"] or "").text


def value(target: psycopg.Connection, table: str, column: str, key: str) -> str | None:
    (found,) = target.execute(f"SELECT {column}::text FROM {table} WHERE id = %s::uuid", [key]).fetchone() or (None,)
    return None if found is None else str(found)


def test_a_row_is_asked_for_as_its_schema_says(operator: FlaskClient, broken: str, target: psycopg.Connection) -> None:
    target.execute("UPDATE users SET subscription_tier = NULL, settings = NULL WHERE id = %s::uuid", [broken])
    page = look(operator, f"/rows/users?key={broken}")
    assert "must be an e-mail address" in below(page, "email")
    email = page.one("input", name="value-email")
    assert (email.attributes["aria-invalid"], email.attributes["value"]) == ("true", f"nonsense {broken}")
    assert page.one("div", id=email.attributes["aria-describedby"] or "").attributes["aria-live"] == "polite"
    tier = page.one("select", name="value-subscription_tier")
    assert [each.text for each in page.every("option") if tier in each.ancestors] == [
        "choose",
        "free",
        "pro",
        "pro_byok",
    ]
    assert "A migration makes it: free" in below(page, "subscription_tier")
    assert "checked" in page.one("input", name="null-subscription_tier").attributes
    assert page.one("textarea", name="value-settings")
    assert not page.every("input", name="value-id"), "keys are shown and not asked for"
    assert broken in page.one("section", aria_labelledby="fixed-title").text
    labels = {each.attributes["for"] for each in page.every("label")}
    assert all(
        each.attributes["id"] in labels for each in page.all if (each.attributes.get("name") or "").startswith("value-")
    )
    assert not inline_scripts(page)


def test_a_value_is_corrected_and_one_is_led_back(
    operator: FlaskClient, broken: str, settings: Settings, target: psycopg.Connection
) -> None:
    target.execute("UPDATE users SET usage_documents = -1 WHERE id = %s::uuid", [broken])
    back = "/quarantine?run=1&table=users"
    page = look(operator, f"/rows/users?key={broken}&back=/quarantine%3Frun%3D1%26table%3Dusers")
    assert page.one("a", class_="page-back", href=back)
    form = filled(page) | {"value-email": "cured@example.com", "back": "/quarantine"}
    done = send(operator, f"/rows/users?key={broken}", form=form)
    assert done.one("h1").text == "Quarantine"
    assert "Saved. Still to cure in this row: usage_documents must be at least 0" in done.one("main").text
    assert email_of(settings.target_database_url, broken) == "cured@example.com"
    again = filled(look(operator, f"/rows/users?key={broken}")) | {"value-usage_documents": "0"}
    page = send(operator, f"/rows/users?key={broken}", form=again)
    assert "nothing is left to cure" in page.one("div", id="flashes").text
    assert page.one("h1").text == "users", "where nobody knows where one came from, the row stays"


def test_what_nobody_changed_stays_as_it_is_to_the_byte(operator: FlaskClient, target: psycopg.Connection) -> None:
    (key, *_) = target.execute("SELECT id::text FROM usage_logs LIMIT 1").fetchone() or ("",)
    path = f"/rows/usage_logs?key={key}"
    for number, texts in enumerate((
        ("\n\nfirst\r\nsecond\rthird\nlast\r\n", "  blanks \t ", ""),
        ("one\r\ntwo\r\n", "a\rb", "one\r\ntwo"),
    )):  # fmt: skip
        target.execute(
            "UPDATE usage_logs SET action = %s, resource_type = %s, resource_id = %s WHERE id = %s::uuid", [*texts, key]
        )
        form = filled(look(operator, path))
        assert "No value was changed" in send(operator, path, 400, form=form).one("main").text
        send(operator, path, form=form | {"value-metadata": f'{{"n": {number}}}'})
        kept = [
            value(target, "usage_logs", name, key) for name in ("action", "resource_type", "resource_id", "metadata")
        ]
        assert kept == [*texts, f'{{"n": {number}}}']
    send(operator, path, form=filled(look(operator, path)) | {"value-resource_id": "one\r\ntwo\r\nthree"})
    assert value(target, "usage_logs", "resource_id", key) == "one\r\ntwo\r\nthree", (
        "a changed text keeps its line ends"
    )


def test_null_is_a_tick(operator: FlaskClient, target: psycopg.Connection, broken: str) -> None:
    target.execute("UPDATE users SET stripe_customer_id = 'cus_1' WHERE id = %s::uuid", [broken])
    path, tick = f"/rows/users?key={broken}", "null-stripe_customer_id"
    both = filled(look(operator, path)) | {tick: "y", "value-stripe_customer_id": "cus_2"}
    page = send(operator, path, 400, form=both)
    assert "Either a value or NULL" in below(page, "stripe_customer_id")
    assert page.one("input", name="value-stripe_customer_id").attributes["value"] == "cus_2"
    saved = send(operator, path, form=both | {"value-stripe_customer_id": "cus_1"})
    assert value(target, "users", "stripe_customer_id", broken) is None
    untouched = send(operator, path, 400, form=filled(saved))
    assert "No value was changed" in untouched.one("main").text
    unticked = filled(saved) | {"value-stripe_customer_id": "cus_3"}
    del unticked[tick]
    send(operator, path, form=unticked)
    assert value(target, "users", "stripe_customer_id", broken) == "cus_3"


def test_secrets_are_asked_for_and_never_shown(operator: FlaskClient, target: psycopg.Connection) -> None:
    (key, *_) = target.execute("SELECT id::text FROM oauth_tokens LIMIT 1").fetchone() or ("",)
    target.execute(
        "UPDATE oauth_tokens SET access_token = %s, refresh_token = %s, provider = 'x' WHERE id = %s::uuid",
        [SECRET, SECRET, key],
    )
    path = f"/rows/oauth_tokens?key={key}"
    text = operator.get(path).get_data(as_text=True)
    assert SECRET not in text
    page = Page(text)
    (box,) = [each for each in page.all if each.attributes.get("name") == "value-access_token"]
    assert box.attributes["placeholder"] == "leave empty to keep it as it is"
    assert "masked" in (box.attributes["class"] or "")
    assert not page.every("input", name="was-access_token"), "nor anything that a guess could be held against"
    wrong = {"value-access_token": f"{SECRET}2", "value-provider": "dropbox"}
    answer = operator.post(path, data=filled(page) | wrong)
    assert (answer.status_code, SECRET in answer.get_data(as_text=True)) == (400, False)
    saved = send(operator, path, form=filled(page) | {"value-provider": "google_drive"})
    assert value(target, "oauth_tokens", "access_token", key) == SECRET, "empty keeps it"
    send(operator, path, form=filled(saved) | {"value-access_token": "new", "null-refresh_token": "y"})
    assert value(target, "oauth_tokens", "access_token", key) == "new"
    assert value(target, "oauth_tokens", "refresh_token", key) is None


def test_as_one_types_only_what_stands_below_the_field_comes_back(
    operator: FlaskClient, broken: str, settings: Settings
) -> None:
    shown = look(operator, f"/rows/users?key={broken}")
    email = shown.one("input", name="value-email").attributes
    assert (email["hx-post"], email["hx-target"]) == (
        f"/rows/users/check?key={broken}&field=email",
        f"#{email['id']}-state",
    )
    form = filled(shown)
    for text, words, left in (
        ("nobody@", "must be an e-mail", "still wrong: email"),
        ("a@b.example", "", "nothing is left"),
    ):
        answer = operator.post(email["hx-post"] or "", data=form | {"value-email": text})
        assert answer.status_code == 200
        part = Page(answer.get_data(as_text=True))
        assert not part.every("input"), "the field itself is left alone"
        faults = " ".join(each.text for each in part.every("div", class_="field-errors"))
        assert (words in faults, bool(faults)) == (True, bool(words))
        assert left in part.one("div", hx_swap_oob="innerHTML:#row-state").text
    assert email_of(settings.target_database_url, broken).startswith("nonsense"), "nothing is written"
    for path in (
        f"/rows/users/check?key={broken}&field=nonsense",
        "/rows/users/check?field=email",
        "/rows/x/check?key=1",
    ):
        answer = operator.post(path, data=form)
        assert answer.status_code in {200, 400}
        assert "Not checked" in answer.get_data(as_text=True) or answer.status_code == 400


def test_what_somebody_else_changed_meanwhile_stands_beside_what_was_typed(
    operator: FlaskClient, broken: str, settings: Settings, target: psycopg.Connection
) -> None:
    path = f"/rows/users?key={broken}"
    form = filled(look(operator, path)) | {"value-email": "mine@example.com"}
    target.execute(
        "UPDATE users SET email = 'theirs@example.com', subscription_tier = 'pro' WHERE id = %s::uuid", [broken]
    )
    page = send(operator, path, 409, form=form)
    assert "Somebody else changed this row" in page.one("main").text
    assert "By now it is: theirs@example.com" in " ".join(each.text for each in page.every("div", class_="now"))
    assert len(page.every("div", class_="now")) == 1, "only beside what was typed"
    email = page.one("input", name="value-email").attributes
    assert (email["value"], "aria-invalid" in email) == ("mine@example.com", False), "judged as it is typed"
    again = filled(page)
    assert again["value-subscription_tier"] == "pro", "what was not typed is what is there by now"
    send(operator, path, form=again)
    assert email_of(settings.target_database_url, broken) == "mine@example.com"
    assert value(target, "users", "subscription_tier", broken) == "pro"


def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(
    operator: FlaskClient, broken: str, target: psycopg.Connection, settings: Settings
) -> None:
    path = f"/rows/users?key={broken}"
    (taken,) = target.execute("SELECT email FROM users WHERE id <> %s::uuid LIMIT 1", [broken]).fetchone() or ("",)
    form = filled(look(operator, path))
    for wrong in (
        {"email": "no address", "usage_documents": "-1", "subscription_tier": "platinum"},
        {"created_at": "yesterday-ish"}, {"usage_documents": "many"}, {"settings": "{"},
        {"email": "a\0b", "created_at": ""}, {"email": str(taken)},
    ):  # fmt: skip
        page = send(operator, path, 400, form=form | {f"value-{column}": text for column, text in wrong.items()})
        assert page.one("div", role="alert")
        assert "field-errors" in str([each.attributes for each in page.all if each.attributes.get("class")]), wrong
        kept = filled(page)
        for column, text in wrong.items():
            assert below(page, column).strip(), column
            (control,) = [each for each in page.all if each.attributes.get("name") == f"value-{column}"]
            assert control.attributes["aria-invalid"] == "true", column
            assert kept[f"value-{column}"].replace("\0", "") == text.replace("\0", "")
    assert email_of(settings.target_database_url, broken).startswith("nonsense")


def test_rows_that_are_not_there_lead_on(operator: FlaskClient, target: psycopg.Connection) -> None:
    assert target
    for path in (
        "/rows/users?key=00000000-0000-4000-8000-000000000000", "/rows/users?key=nonsense", "/rows/users", "/rows/pg_class?key=1",
        "/rows/users?key=1&key=2", "/rows/%00?key=1", "/rows/users?key=%00",
    ):  # fmt: skip
        assert look(operator, path, 404).one("a", class_="btn btn-primary", href="/quarantine")
        send(operator, path, 404, form={"value-email": "a@b.example"})


def test_one_is_only_led_back_within_the_program(operator: FlaskClient, broken: str) -> None:
    path = f"/rows/users?key={broken}"
    hosts = ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/runs/../..//x")
    for number, bad in enumerate(hosts):
        page = look(operator, f"{path}&back={bad}")
        assert page.one("a", class_="page-back").attributes["href"] == "/quarantine"
        if number > 1:
            continue
        form = filled(page) | {"value-email": f"a{number}@b.example", "back": bad}
        answer = operator.post(path, data=form)
        assert answer.headers["Location"].startswith("/rows/users?")
    came = operator.get(path, headers={"Referer": "http://localhost/runs/3/findings?class=blocking"})
    assert Page(came.get_data(as_text=True)).one("a", class_="page-back", href="/runs/3/findings?class=blocking")
    came = operator.get(path, headers={"Referer": "http://evil.example/quarantine"})
    assert Page(came.get_data(as_text=True)).one("a", class_="page-back", href="/quarantine")


def test_scripts_in_the_data_are_text(operator: FlaskClient, target: psycopg.Connection, broken: str) -> None:
    target.execute(
        "UPDATE users SET email = %s, subscription_tier = %s, settings = to_jsonb(%s::text) WHERE id = %s::uuid",
        [HOSTILE, HOSTILE, f"</textarea>{HOSTILE}", broken],
    )
    page = look(operator, f"/rows/users?key={broken}")
    assert not inline_scripts(page)
    assert page.one("input", name="value-email").attributes["value"] == HOSTILE
    form = filled(page)
    answer = operator.post(f"/rows/users/check?key={broken}&field=email", data=form | {"value-email": f"x{HOSTILE}"})
    assert "<script" not in answer.get_data(as_text=True)


def test_a_row_is_left_alone_with_a_reason_and_no_longer(operator: FlaskClient, broken: str) -> None:
    path = f"/rows/users?key={broken}"
    page = send(operator, f"/rows/users/skip?key={broken}", 400, reason="  ")
    assert "Say why" in page.one("section", id="skip").text
    for bad in ("x" * 501, "one\ntwo"):
        page = send(operator, f"/rows/users/skip?key={broken}", 400, reason=bad)
        assert page.one("div", id="reason-errors").text
    page = send(operator, f"/rows/users/skip?key={broken}", reason=f"A test account {HOSTILE}", back=path)
    assert f"Why: A test account {HOSTILE}" in page.one("main").text
    assert not page.every("section", id="skip")
    send(operator, f"/rows/users/unskip?key={broken}")
    assert look(operator, path).one("section", id="skip")
    send(operator, f"/rows/users/unskip?key={broken}", 404)
    send(operator, "/rows/users/skip?key=00000000-0000-4000-8000-000000000000", 404, reason="gone")


def test_beside_a_run_nothing_is_saved_and_nothing_typed_is_lost(
    operator: FlaskClient, broken: str, target: psycopg.Connection, settings: Settings
) -> None:
    path = f"/rows/users?key={broken}"
    form = filled(look(operator, path)) | {"value-email": "cured@example.com"}
    target.execute("SELECT pg_advisory_lock(%s)", [fence._LOCK])
    page = send(operator, path, 409, form=form)
    assert "Nothing was changed" in page.one("div", role="alert").text
    assert page.one("input", name="value-email").attributes["value"] == "cured@example.com"
    assert email_of(settings.target_database_url, broken).startswith("nonsense")


def test_a_viewer_reads_and_changes_nothing(client_as: ClientAs, broken: str, settings: Settings) -> None:
    viewer = client_as("viewer")
    page = look(viewer, f"/rows/users?key={broken}")
    assert not page.every("form", id="row")
    assert "must be an e-mail address" in page.one("main").text
    for path in ("", "/check", "/skip", "/unskip"):
        send(viewer, f"/rows/users{path}?key={broken}", 403, form={"value-email": "a@b.example", "reason": "x"})
    assert client_as(NOBODY).get(f"/rows/users?key={broken}").status_code == 303
    assert email_of(settings.target_database_url, broken).startswith("nonsense")


def test_a_column_unknown_to_the_plan_is_told_as_unread(
    client_as: ClientAs, settings: Settings, sample_data: dict[str, int]
) -> None:
    assert sample_data
    with psycopg.connect(settings.target_database_url) as connection:
        (key,) = connection.execute("SELECT id::text FROM users LIMIT 1").fetchone() or ("",)
        connection.execute("ALTER TABLE users ADD stranger text DEFAULT 'canary-4711'")
    page = look(client_as("viewer"), f"/rows/users?key={key}")
    assert "not shown: the plan does not know this column" in page.one("main").text
    assert "canary" not in page.one("main").text
