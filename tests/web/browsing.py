"""Pages asked for and forms sent, as a browser does; the answers as elements to look at."""

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from flask.testing import FlaskClient

from tests.serving import csrf_of
from tests.web.rendering import Element, Page

_TOKENS: WeakKeyDictionary[FlaskClient, tuple[str, str]] = WeakKeyDictionary()
"""Of each browser: what its session keeps, and the token made of it."""


def look(browser: FlaskClient, path: str, code: int = 200) -> Page:
    """The page at `path`."""
    answer = browser.get(path)
    assert answer.status_code == code, answer.get_data(as_text=True)
    return Page(answer.get_data(as_text=True))


def send(
    browser: FlaskClient, path: str, code: int = 303, form: Mapping[str, str | list[str]] | None = None, **fields: str
) -> Page:
    """The page that a form leads to, or the one that came back with `code`."""
    answer = browser.post(path, data={"csrf_token": _csrf_of(browser), **(form or {}), **fields})
    assert answer.status_code == code, answer.get_data(as_text=True)
    if code == 303:
        answer = browser.get(answer.headers["Location"])
        assert answer.status_code == 200, answer.get_data(as_text=True)
    return Page(answer.get_data(as_text=True))


def _csrf_of(browser: FlaskClient) -> str:
    """The token of the browser's session, which a page is asked for but once."""
    with browser.session_transaction() as session:
        kept = str(session.get("csrf_token"))
    if _TOKENS.get(browser, ("", ""))[0] != kept:
        token = csrf_of(browser)
        with browser.session_transaction() as session:
            _TOKENS[browser] = str(session.get("csrf_token")), token
    return _TOKENS[browser][1]


def confirmations(page: Page) -> list[Element]:
    """The forms that want typed words."""
    return [form for form in page.every("form") if "data-confirm" in form.attributes]


def inline_scripts(page: Page) -> list[str]:
    """What a browser would run though we never wrote it."""
    return [script.text for script in page.every("script") if "src" not in script.attributes]
