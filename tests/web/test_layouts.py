"""The frame of every page, sign-in, errors, and what holds for all templates and stylesheets."""

import re
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment
from wtforms import Form, PasswordField, StringField
from wtforms.validators import InputRequired

from briefly_admin.domain.permissions import Role
from briefly_admin.web import parts
from tests.web.rendering import HOSTILE, ROOT, Page, strict_environment

TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))


@pytest.fixture(scope="module")
def environment() -> Environment:
    return strict_environment()


@pytest.fixture
def site() -> parts.Site:
    nav = parts.navigation(Role.ADMIN, "/briefly", "/backups/7/rollback")
    return parts.Site("1.2.3", "/briefly/", nav, parts.Person(HOSTILE, "admin", "/me", "/sign-out"), "db/briefly", 1800)


def test_the_base_layout_frames_a_page(environment: Environment, site: parts.Site) -> None:
    text = '{% extends "layouts/base.html" %}{% block title %}Backups{% endblock %}{% block content %}<h1>B</h1>{% endblock %}'
    page = Page(environment.from_string(text).render(site=site))
    assert page.one("html", lang="en")
    assert page.one("title").text == "Backups · Briefly Admin"
    assert page.one("main", id="content")
    assert page.one("a", href="#content").text == "Skip to the content"
    assert {link.text for link in page.every("a", aria_current="page")} == {"Backups"}
    assert page.one("form", method="post", action="/sign-out")
    assert page.one("body", data_idle_seconds="1800").attributes["hx-headers"] == '{"X-CSRFToken": "a-token"}'
    assert "Briefly Admin 1.2.3" in page.one("footer").text
    assert not [script for script in page.every("script") if "src" not in script.attributes]
    assert "main" not in [e.tag for e in page.one("div", id="connection").ancestors]


def test_the_layout_without_a_person_shows_no_account(environment: Environment) -> None:
    page = Page(environment.from_string('{% extends "layouts/base.html" %}').render(site=parts.Site("1")))
    assert not page.every("form")
    assert "data-idle-seconds" not in page.one("body").attributes


def test_signing_in_needs_no_site(environment: Environment) -> None:
    class SignIn(Form):
        email = StringField("E-mail", [InputRequired()])
        password = PasswordField("Password", [InputRequired()])

    template = environment.get_template("session/sign_in.html")
    page = Page(template.render(form=SignIn(), error="The e-mail or the password is wrong."))
    assert page.one("input", type="email", autocomplete="username", name="email")
    assert page.one("input", type="password", autocomplete="current-password", value="")
    assert page.one("input", name="csrf_token", value="a-token")
    assert "wrong" in page.one("div", role="alert").text
    assert not Page(template.render(form=SignIn(), error="")).every("div", role="alert")


@pytest.mark.parametrize("code", [403, 404, 409, 429, 500])
def test_an_error_says_what_why_and_what_to_do(environment: Environment, code: int) -> None:
    page = Page(
        environment.get_template("errors/error.html").render(
            code=code, title="Not found", message=HOSTILE, remedy="Look elsewhere.", home_url="/"
        )
    )
    assert page.one("h1").text == "Not found"
    assert f"Error {code}" in page.one("main").text
    assert "What to do: Look elsewhere." in page.one("main").text
    assert HOSTILE in page.one("main").text
    assert page.one("a", href="/")


@pytest.mark.parametrize(
    ("path", "current"),
    [
        ("/", "Overview"), ("/runs/42", "Overview"), ("/runs/new", "New run"), ("/checks", "Checklist"), ("/backups/", "Backups"),
        ("/backupsandmore", None), ("/me", None), ("/audit/verify", "Audit"),
    ],
)  # fmt: skip
def test_one_link_is_the_current_page(path: str, current: str | None) -> None:
    items = parts.navigation(Role.ADMIN, "", path)
    assert [item.label for item in items if item.current] == ([current] if current else [])


def test_links_keep_to_the_role_and_the_mount_point() -> None:
    viewer = parts.navigation(Role.VIEWER, "/briefly/app", "/")
    assert [item.url for item in viewer] == [
        "/briefly/app/",
        "/briefly/app/checks",
        "/briefly/app/quarantine",
        "/briefly/app/backups",
        "/briefly/app/audit",
    ]
    assert "Admins" not in [item.label for item in parts.navigation(Role.OPERATOR, "", "/")]
    assert "Admins" in [item.label for item in parts.navigation(Role.ADMIN, "", "/")]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_no_template_holds_inline_style_script_or_unescaped_data(path: Path) -> None:
    source = re.sub(r"\{#.*?#\}", "", path.read_text(), flags=re.DOTALL)
    assert not re.search(r"\sstyle=\"|<style|\son[a-z]+=|\|\s*safe\b|hx-on|javascript:", source)
    assert not re.search(r"<script(?![^>]*\ssrc=)", source)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_every_icon_that_a_template_names_is_in_the_sprite(path: Path) -> None:
    known = set((ROOT / "static/icons.txt").read_text().split())
    assert set(re.findall(r"\bicon\('([a-z0-9-]+)'", path.read_text())) <= known


def test_icons_of_looks_and_navigation_are_in_the_sprite(environment: Environment) -> None:
    known = set((ROOT / "static/icons.txt").read_text().split())
    status: Any = environment.get_template("components/_status.html").module
    phases: Any = environment.get_template("components/_phases.html").module
    assert {look[0] for look in status.looks.values()} | set(phases.looks.values()) <= known
    assert {item.icon for item in parts.navigation(Role.ADMIN, "", "/")} <= known


def test_the_stylesheets_name_only_files_of_ours() -> None:
    for sheet in (ROOT / "static/css").glob("*.css"):
        for address in re.findall(r"url\(\"?([^)\"]+)", sheet.read_text()):
            assert (sheet.parent / address).resolve().is_file(), address
