"""What README, guide and changelog name exists in the program, and the reverse."""

import json
import re
import struct
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from briefly_admin import __version__, create_app
from briefly_admin.cli import INTERRUPTED, main
from briefly_admin.cli.supervisor import read_procfile
from briefly_admin.domain import errors
from briefly_admin.domain.config import AUTO, FIELDS, RunConfig
from briefly_admin.domain.permissions import Role
from briefly_admin.domain.runs import RunKind, phases
from briefly_admin.engine import careful
from briefly_admin.engine.sampledata import BLOCKING_FAULTS, NOTICE_FAULTS, REPAIRABLE_FAULTS
from briefly_admin.plans import plan
from briefly_admin.plans.judging import describe
from briefly_admin.settings import Settings, load
from tests.docs.readme import GUIDE, README, ROOT, code, commands, section, table

_NOWHERE = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/app", "TARGET_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/target",
    "REDIS_URL": "redis://127.0.0.1:9",
}  # fmt: skip
FAULTS = {"blocking": BLOCKING_FAULTS, "notice": NOTICE_FAULTS, "repairable": REPAIRABLE_FAULTS}
TEXTS = pytest.mark.parametrize("text", [README, GUIDE], ids=["README", "guide"])


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.names: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Settings, set[str]]:
    environ = Asked({"BRIEFLY_HOME": str(tmp_path)})
    return load(environ, embedded=_NOWHERE), environ.names


_REFUSED = {"NEXT_PUBLIC_SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY"}


@TEXTS
def test_settings_are_those_that_the_program_reads(text: str, asked: tuple[Settings, set[str]]) -> None:
    named = [name for row in table(section(text, "Settings"), "variable") for name in code(row[0])]
    assert len(named) == len(set(named))
    assert set(named) == asked[1] - _REFUSED


def test_settings_that_are_refused_are_explained(asked: tuple[Settings, set[str]]) -> None:
    assert asked[1] >= _REFUSED
    assert set(code(section(README, "Settings"))) >= _REFUSED


def test_defaults_of_the_settings_are_true(asked: tuple[Settings, set[str]]) -> None:
    compared = 0
    for names, default, _ in table(section(README, "Settings"), "variable"):
        value = getattr(asked[0], code(names)[0].lower(), None)
        if isinstance(value, bool | int) or (isinstance(value, str) and re.fullmatch(r"[a-z]+", default)):
            if default in {"embedded", "the target"}:
                continue
            assert default == str(int(value) if isinstance(value, bool | int) else value), names
            compared += 1
    assert compared >= 11


def _leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        full = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield full, command
            yield from _leaves(command, full)
        else:
            yield full, command


COMMANDS = dict(_leaves(main))


def test_the_table_of_commands_is_whole() -> None:
    listed = [words for row in table(section(README, "The command"), "command") for words in code(row[0])]
    assert {re.sub(r"( \[?[A-Z_]+\]?)+$", "", words) for words in listed} == set(COMMANDS)


def test_arguments_in_the_table_of_commands_are_true() -> None:
    for row in table(section(README, "The command"), "command"):
        for words in code(row[0]):
            name = re.sub(r"( \[?[A-Z_]+\]?)+$", "", words)
            arguments = [p for p in COMMANDS[name].params if isinstance(p, click.Argument)]
            assert words.removeprefix(name).split() == [a.metavar or (a.name or "").upper() for a in arguments]
        last = COMMANDS[re.sub(r"( \[?[A-Z_]+\]?)+$", "", code(row[0])[-1])]
        known = {option for words in code(row[0]) for option in _options(words)} | set(_options_of(last))
        assert set(re.findall(r"--[a-z-]+", row[1])) <= known, row


def _options(words: str) -> list[str]:
    return _options_of(COMMANDS[re.sub(r"( \[?[A-Z_]+\]?)+$", "", words)])


def _options_of(command: click.Command) -> list[str]:
    return [o for p in command.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)]


@TEXTS
def test_every_use_of_the_command_is_possible(text: str) -> None:
    used = [
        each
        for each in [*code(text), *(c.text for c in commands(text))]
        if re.match(r"(\.venv/bin/)?briefly-admin \w", each)
    ]
    assert len(used) > 8
    for each in used:
        words = each.split("#", maxsplit=1)[0].split("briefly-admin ")[1]
        name = next((n for n in sorted(COMMANDS, key=len, reverse=True) if f"{words} ".startswith(f"{n} ")), None)
        assert name, f"there is no such command: {each}"
        assert set(re.findall(r"--[a-z-]+", words)) <= {*_options_of(COMMANDS[name]), "--help"}, each


@TEXTS
def test_exit_codes_are_those_of_the_errors(text: str) -> None:
    title = "The command" if text is README else "Exit codes"
    first = "exit code" if text is README else "code"
    known = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.BrieflyError)}
    assert {int(row[0]) for row in table(section(text, title), first)} == known | {0, INTERRUPTED}


@TEXTS
def test_roles_are_the_programs(text: str) -> None:
    title = "Roles" if text is README else "People, roles, tokens"
    assert [row[0] for row in table(section(text, title), "role")] == [str(role) for role in Role]


def test_endpoints_are_those_of_the_documentation(asked: tuple[Settings, set[str]]) -> None:
    app = create_app(asked[0])
    spec = app.extensions["briefly.openapi"].to_dict()
    verbs = ("get", "post", "put", "patch", "delete")
    real = {f"{m.upper()} {path}" for path, found in spec["paths"].items() for m in verbs if m in found}
    extra = {"GET /api/openapi.json", "GET /api/docs", "GET /healthz", "GET /readyz"}
    rules = {f"{m} {rule}" for rule in app.url_map.iter_rules() for m in rule.methods or ()}
    assert extra <= rules
    named = {words for row in table(section(README, "JSON endpoints"), "request") for words in code(row[0])}
    assert named == real | extra
    app.extensions["briefly"].close()


def test_addresses_in_the_guide_lead_somewhere(asked: tuple[Settings, set[str]]) -> None:
    app = create_app(asked[0])
    found = app.url_map.bind("here")
    named = [re.fullmatch(r"(?:(GET|POST) )?(/[a-z][^?…]*)(?:\?.*)?", words) for words in code(GUIDE)]
    tried = [(match[2], match[1] or "GET") for match in named if match and not match[2].startswith("/var")]
    assert len(tried) > 14
    for path, method in tried:
        assert found.match(path, method), (method, path)
    app.extensions["briefly"].close()


def test_every_endpoint_but_pages_has_its_curl() -> None:
    curls = " ".join(command.text for command in commands() if "curl" in command.text)
    for row in table(section(README, "JSON endpoints"), "request"):
        for words in code(row[0]):
            path = words.split()[1].replace("{run_id}", "$RUN").replace("{backup_id}", "$BACKUP")
            path = path.replace("{table}", "users")
            # An approval takes two admins, and a setting that `make run` does not make.
            if path not in {"/api/docs", "/api/v1/runs/$RUN/validation", "/api/v1/runs/$RUN/approve"}:
                assert f"http://127.0.0.1:8000{path}" in curls, path


def test_fields_of_a_run_are_the_programs() -> None:
    defaults = RunConfig().to_json()
    rows = {code(row[0])[0]: row for row in table(section(GUIDE, "Settings of a run"), "field")}
    assert list(rows) == [f.name for f in FIELDS]
    for each in FIELDS:
        _, default, bounds, words = rows[each.name]
        assert default == str(defaults[each.name]).lower(), each.name
        if each.kind == "integer":
            assert bounds.split(" ms")[0] == f"{each.minimum:,} to {each.maximum:,}"
        elif each.kind == "automatic":
            assert bounds == f"{each.minimum:,} to {each.maximum:,}, {AUTO}"
        elif each.kind == "choice":
            assert tuple(bounds.split(", ")) == each.choices
        if each.live:
            assert "while it runs" in words


def test_rules_of_findings_are_the_plans() -> None:
    unified = plan("unified")
    fields = {rule.name for t in unified.tables for f in describe(t.record).fields for rule in f.rules}
    relations = {relation.name for t in unified.tables for relation in t.relations}
    of_every_plan = {"null", "required", "type", "type_range", "foreign_key", "unique", "repair"}
    rows = table(section(GUIDE, "Findings and their cures"), "rule")
    assert {word for row in rows for word in code(row[0])} == fields | relations | of_every_plan
    notices = {r.name for t in unified.tables for r in t.relations if r.finding_class == "notice"}
    assert {code(row[0])[0] for row in rows if "(notice)" in row[1]} == notices


def test_findings_of_the_plan_are_those_that_sample_data_plant() -> None:
    planted = {
        (f"{plant.table}.{field}", rule, finding_class)
        for finding_class, plants in FAULTS.items() for plant in plants.values() for field, rule in plant.findings
    }  # fmt: skip
    rows = table(section(GUIDE, "Every finding of the plan `unified`"), "finding")
    listed = [
        (field, code(rule)[0], finding_class) for fields, rule, finding_class, *_ in rows for field in code(fields)
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == planted
    for _, _, finding_class, means, cure in rows:
        assert means
        assert cure.startswith("the run") == (finding_class == "repairable")


def test_words_that_the_guide_gives_for_a_cure_are_right() -> None:
    unified = plan("unified")
    choices = {
        f"{t.name}.{f.name}": list(rule.choices)
        for t in unified.tables for f in describe(t.record).fields for rule in f.rules if rule.kind == "one_of"
    }  # fmt: skip
    named = {
        field: code(cure)
        for fields, rule, finding_class, _, cure in table(section(GUIDE, "Every finding of the plan `unified`"), "finding")
        for field in code(fields) if code(rule) == ["one_of"] and finding_class == "blocking"
    }  # fmt: skip
    assert named == choices


def test_causes_of_quarantine_are_the_engines() -> None:
    named = {word for row in table(section(GUIDE, "Quarantine"), "cause") for word in code(row[0])}
    assert named == {*careful._CAUSES.values(), careful.REFUSED}
    assert "skipped" in code(section(GUIDE, "Quarantine"))


def test_phases_are_named_in_order() -> None:
    named = re.findall(r"^\d\. \*\*(\w+)\*\*", section(GUIDE, "Running"), re.MULTILINE)
    assert named == [str(phase) for phase in phases(RunKind.MIGRATION)]


def test_targets_of_make_are_the_makefiles() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    named = {*re.findall(r"^make (\w+)$", README, re.MULTILINE), *re.findall(r"`make (\w+)`", README)}
    assert named == set(phony)


def test_ci_runs_the_readmes_test_command_first() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make test", "make check"]
    assert "make test" in [command.text for command in commands()]


def test_deployment_names_the_processes_and_what_they_require(asked: tuple[Settings, set[str]]) -> None:
    text = section(README, "How it deploys")
    processes = {line.split(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()}
    assert processes == {*read_procfile(ROOT / "Procfile"), "release"}
    assert processes <= set(code(text))
    wanted = set(json.loads((ROOT / "app.json").read_text())["env"])
    assert wanted <= asked[1]
    assert wanted - {"APP_ENV"} <= set(code(text))


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        assert "://" not in target
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}, target


def test_folders_of_the_readme_are_there() -> None:
    listed = {words for row in table(section(README, "Development"), "folder") for words in code(row[0])}
    assert all((ROOT / words).is_dir() for words in listed)
    packages = {f"briefly_admin/{p.parent.name}/" for p in (ROOT / "briefly_admin").glob("*/__init__.py")}
    assert packages <= listed


def test_picture_of_the_run_page_is_one_and_is_small() -> None:
    data = (ROOT / "docs" / "img" / "run.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">I", data[16:20])[0] >= 1000
    assert len(data) < 200_000


def test_changelog_begins_with_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == project["version"] == __version__
