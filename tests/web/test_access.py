"""Every route for everybody: by role, by credentials, with and without the form's secret; and what every answer carries."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import AnyConverter, BaseConverter, IntegerConverter, Rule
from werkzeug.wrappers import Response

from briefly_admin import create_app
from briefly_admin.domain.permissions import GRANTS, Permission, Role
from briefly_admin.services.access import PUBLIC, Access, access_of, public, requires
from briefly_admin.settings import Settings
from tests.serving import NOBODY, ClientAs, TokenAs, csrf_of, services_of

ROLES = [*Role, NOBODY]
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}


def routes(app: Flask) -> Iterator[tuple[Rule, str, str, Access | None]]:
    """Every route: its rule, an address of nothing that exists, the method, what it demands."""
    for rule in app.url_map.iter_rules():
        with app.test_request_context():
            values = {name: some(converter) for name, converter in rule._converters.items()}
            built = app.url_map.bind("localhost").build(rule.endpoint, values)
        for method in sorted(rule.methods or ()):
            yield rule, built, method, access_of(app.view_functions[rule.endpoint], method)


def some(converter: BaseConverter) -> str:
    """A value that the route takes, of nothing that exists."""
    if isinstance(converter, AnyConverter):
        return min(converter.items)
    return "99999" if isinstance(converter, IntegerConverter) else str(uuid4())


def test_every_route_declares_who_may_use_it(app: Flask) -> None:
    declared = {(rule.rule, method): access for rule, _, method, access in routes(app)}
    assert len(declared) > 20
    assert not [route for route, access in declared.items() if access is None]
    public_ones = {rule for (rule, _), access in declared.items() if access is PUBLIC}
    assert public_ones == {"/healthz", "/readyz", "/sign-in", "/static/<path:filename>"}
    assert not [rule for (rule, method) in declared if method in UNSAFE and "progress" in rule]


def test_routes_times_roles(app: Flask, client_as: ClientAs, token_as: TokenAs) -> None:
    """Right role: not refused, whatever else is said of things that do not exist. Wrong role: 403. Nobody: 401.

    These tokens are of no person, and only a person approves.
    """
    app.config["RATELIMIT_ENABLED"] = False
    browsers = {role: client_as(role) for role in ROLES}
    secrets = {role: csrf_of(browsers[role]) for role in Role}
    tokens = {role: token_as(role) for role in Role}
    wrong: list[tuple[str, str, str, int]] = []
    for rule, path, method, access in routes(app):
        if not isinstance(access, Permission) or rule.endpoint == "session.sign_out" or path.startswith(OWN_OR_UNKNOWN):
            continue
        for role in ROLES:
            seen = asked(browsers[role], method, path, secrets.get(role)).status_code
            if not as_demanded(seen, role, access, is_page=is_page(path)):
                wrong.append((method, path, role, seen))
            if role != NOBODY and path.startswith("/api/"):
                seen = app.test_client().open(path, method=method, headers=tokens[role]).status_code
                demanded = (
                    seen == 403 if access is Permission.APPROVE else as_demanded(seen, role, access, is_page=False)
                )
                if not demanded:
                    wrong.append((method, path, f"token of {role}", seen))
    assert not wrong


OWN_OR_UNKNOWN = ("/me/sessions/", "/me/tokens/")
"""What does not exist is as forbidden there as what is somebody else's: nobody learns which."""


def is_page(path: str) -> bool:
    return not path.startswith("/api/") or path == "/api/docs"


def asked(browser: FlaskClient, method: str, path: str, secret: str | None) -> Response:
    headers = {"X-CSRFToken": secret} if secret and method in UNSAFE else {}
    return browser.open(path, method=method, headers=headers)


def as_demanded(status: int, role: str, access: Permission, *, is_page: bool) -> bool:
    if role == NOBODY:
        return status == (303 if is_page else 401)
    if access not in GRANTS[Role(role)]:
        return status == 403
    return status not in {401, 403, 500}


def test_every_unsafe_route_wants_the_secret_of_its_own_page(app: Flask, client_as: ClientAs) -> None:
    browser, stranger = client_as("admin"), client_as("viewer")
    foreign, own = csrf_of(stranger), csrf_of(browser)
    unsafe = [(path, method) for _, path, method, _ in routes(app) if method in UNSAFE]
    assert len(unsafe) > 8
    for path, method in unsafe:
        for headers in (
            {}, {"X-CSRFToken": ""}, {"X-CSRFToken": "nonsense"}, {"X-CSRFToken": foreign},
            {"X-CSRFToken": own, "Origin": "https://evil.example"}, {"X-CSRFToken": own, "Origin": "null"},
            {"X-CSRFToken": own, "Sec-Fetch-Site": "cross-site"}, {"X-CSRFToken": own, "Sec-Fetch-Site": "same-site"},
        ):  # fmt: skip
            answer = browser.open(path, method=method, headers=headers)
            assert answer.status_code == 400, (path, method, headers)
    assert browser.get("/api/migration").get_json()["data"]["count"] == 0, "and nothing happened"


def test_the_secret_in_the_form_or_from_the_same_origin_will_do(client_as: ClientAs) -> None:
    browser = client_as("viewer")
    same = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin", "X-CSRFToken": csrf_of(browser)}
    assert browser.post("/api/migration", json={"action": "status"}, headers=same).status_code == 200
    assert browser.post("/sign-out", data={"csrf_token": csrf_of(browser)}).status_code == 303


def test_a_bearer_is_judged_by_the_token_alone(client_as: ClientAs, token_as: TokenAs) -> None:
    browser = client_as("admin")
    body = {"action": "status"}
    assert browser.post("/api/migration", json=body, headers=token_as("viewer")).status_code == 200, "needs no secret"
    for bad in ("Bearer bra_nonsense", "Bearer ", "Bearer", "Basic YW5hOnB3", "nonsense", "Bearer \x7f"):
        answer = browser.post("/api/migration", json=body, headers={"Authorization": bad})
        assert answer.status_code == 401, bad
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    rollback = {"backupId": "backup_1", "confirm": True}
    assert browser.post("/api/migration/rollback", json=rollback, headers=token_as("operator")).status_code == 403


def test_a_token_opens_no_pages(app: Flask, token_as: TokenAs) -> None:
    assert app.test_client().get("/audit", headers=token_as("admin")).status_code == 303


def test_a_route_that_says_nothing_is_closed_to_everybody(settings: Settings, client_as: ClientAs, app: Flask) -> None:
    # Registered before the first request, on an app of its own over the same servers.
    other = create_app(settings)
    other.add_url_rule("/forgotten", "forgotten", lambda: "secret", methods=["GET", "POST"])
    services_of(other).close()
    browser = client_as("admin")
    cookie = browser.get_cookie("briefly")
    assert cookie
    there = other.test_client()
    there.set_cookie("briefly", cookie.value)
    for client in (there, other.test_client()):
        answer = client.get("/forgotten")
        assert (answer.status_code, "secret" in answer.get_data(as_text=True)) == (403, False)
    services_of(other).close()


def test_marks_are_read_from_functions_and_classes_of_views() -> None:
    from flask.views import MethodView

    class Things(MethodView):
        @requires(Permission.READ)
        def get(self) -> str:
            return ""

        @public
        def post(self) -> str:
            return ""

        def delete(self) -> str:
            return ""

    view = Things.as_view("things")
    assert access_of(view, "GET") is access_of(view, "HEAD") is Permission.READ
    assert access_of(view, "POST") is PUBLIC
    assert access_of(view, "DELETE") is None
    assert access_of(view, "PUT") is None


ADDRESSES = ["/sign-in", "/nowhere", "/api/nowhere", "/api/migration", "/healthz", "/static/css/app.css", "/api/docs"]


def test_every_answer_carries_the_headers(app: Flask) -> None:
    for path in ADDRESSES:
        with app.test_client().get(path) as answer:
            answer.get_data()
        check_headers(path, answer)


def check_headers(path: str, answer: Response) -> None:
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} <= set(policy.split("; "))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "Strict-Transport-Security" not in answer.headers
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    if not path.startswith("/static"):
        assert answer.headers["Cache-Control"] == "no-store"
        assert "HX-Request" in answer.headers["Vary"]


def test_static_files_are_named_by_content_and_kept(app: Flask) -> None:
    browser = app.test_client()
    url = re.search(r'href="(/static/css/app\.css\?v=[0-9a-f]{12})"', browser.get("/sign-in").get_data(as_text=True))
    assert url
    with browser.get(url[1]) as kept, browser.get("/static/css/app.css") as unnamed:
        assert kept.status_code == unnamed.status_code == 200
        assert "immutable" in kept.headers["Cache-Control"]
        assert "immutable" not in unnamed.headers.get("Cache-Control", "")
    for path in (
        "/static/../pyproject.toml",
        "/static/%2e%2e/pyproject.toml",
        "/static//etc/passwd",
        "/static/css",
        "/static/%00",
    ):
        assert browser.get(path).status_code in {404, 308}, path


def test_no_method_beyond_the_declared_ones(app: Flask) -> None:
    for path, allowed in (("/sign-in", {"GET", "HEAD", "POST"}), ("/api/migration", {"GET", "HEAD", "POST"})):
        for method in ("OPTIONS", "PUT", "DELETE", "PATCH"):
            answer = app.test_client().open(path, method=method)
            assert answer.status_code == 405
            assert {name.strip() for name in answer.headers["Allow"].split(",")} == allowed


def test_error_pages_say_what_and_nothing_more(app: Flask, client_as: ClientAs) -> None:
    missing = client_as("viewer").get("/nowhere")
    assert (missing.status_code, missing.mimetype) == (404, "text/html")
    refused = client_as("viewer").get("/admins")
    assert refused.status_code == 403
    assert "needs the role admin" in refused.get_data(as_text=True)
    large = app.test_client().post("/sign-in", data={"password": "x" * 1_100_000})
    assert large.status_code == 413


@pytest.mark.usefixtures("own_app")
def test_unexpected_errors_show_nothing(app: Flask, capfd: pytest.CaptureFixture[str]) -> None:
    canary = "postgresql://u:c4nary@db.example.com/briefly"

    def broken() -> str:
        raise ValueError(canary)

    for path in ("/broken", "/api/broken"):
        app.add_url_rule(path, path, public(broken))
    for path, kind in (("/broken", "text/html"), ("/api/broken", "application/json")):
        answer = app.test_client().get(path)
        assert (answer.status_code, answer.mimetype) == (500, kind)
        text = answer.get_data(as_text=True)
        assert "c4nary" not in text
        assert "Traceback" not in text
        assert "ValueError" not in text
    assert "c4nary" not in capfd.readouterr().err


@pytest.fixture
def broken_app(settings: Settings) -> Iterator[Callable[..., Flask]]:
    made = []

    def build(**values: Any) -> Flask:
        made.append(create_app(replace(settings, **values)))
        return made[-1]

    yield build
    for app in made:
        services_of(app).close()


CANARY = "c4nary"
DEAD = f"postgresql://someone:{CANARY}@127.0.0.1:1/{{}}"


def test_a_dead_app_database_is_told_without_its_address(broken_app: Callable[..., Flask]) -> None:
    app = broken_app(database_url=DEAD.format("app"))
    for answer in (
        app.test_client().get("/api/migration", headers={"Authorization": "Bearer bra_x"}), app.test_client().get("/readyz"),
        with_cookie(app).get("/audit"),
    ):  # fmt: skip
        assert answer.status_code == 503
        assert CANARY not in answer.get_data(as_text=True)
    assert app.test_client().get("/readyz").get_json() == {"status": "unavailable", "reason": "app_database"}
    assert app.test_client().get("/healthz").get_json() == {"status": "ok"}
    assert app.test_client().get("/sign-in").status_code == 200


def with_cookie(app: Flask) -> FlaskClient:
    browser = app.test_client()
    browser.set_cookie("briefly", "x" * 43)
    return browser


def test_readiness_names_what_is_missing_in_one_word(broken_app: Callable[..., Flask]) -> None:
    for values, reason in (
        ({"target_database_url": DEAD.format("target")}, "target_database"),
        ({"redis_url": f"redis://:{CANARY}@127.0.0.1:1/0"}, "redis"),
        ({}, "worker"),
    ):
        answer = broken_app(**values).test_client().get("/readyz")
        assert (answer.status_code, answer.get_json()["reason"]) == (503, reason)
        assert CANARY not in answer.get_data(as_text=True)


def test_a_dead_redis_takes_no_page_and_no_endpoint_down(
    broken_app: Callable[..., Flask], app: Flask, token_as: TokenAs
) -> None:
    headers = token_as("viewer")
    other = broken_app(redis_url=f"redis://:{CANARY}@127.0.0.1:1/0")
    assert other.test_client().get("/api/migration", headers=headers).status_code == 200


def test_beyond_the_limit_requests_wait(settings: Settings, app: Flask, token_as: TokenAs) -> None:
    app.config["API_REQUESTS_PER_MINUTE"] = 3
    headers = token_as("viewer")
    browser = app.test_client()
    statuses = [browser.get("/api/migration", headers=headers) for _ in range(5)]
    assert [answer.status_code for answer in statuses[:3]] == [200, 200, 200]
    assert statuses[-1].status_code == 429
    assert int(statuses[-1].headers["Retry-After"]) >= 1
    assert statuses[-1].get_json()["error"] == "too_many_requests"
    assert browser.get("/api/migration").status_code == 429, "nor is a stranger's credential looked at"
    assert browser.get("/sign-in").status_code == 200, "pages are not limited"
