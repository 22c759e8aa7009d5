"""The whole program, as `make run` starts it, and a headless Chromium in front of it."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90


@dataclass(frozen=True)
class Program:
    """A running program: its URL, its administrator, its home."""

    url: str
    email: str
    password: str
    home: Path

    @property
    def addresses(self) -> dict[str, str]:
        return dict(json.loads((self.home / "addresses.json").read_text()))

    def command(self, *arguments: str, stdin: str = "") -> str:
        """What `briefly-admin …` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "briefly_admin.cli", *arguments], cwd=ROOT, input=stdin, text=True, check=True,
            capture_output=True, env=os.environ | {"BRIEFLY_HOME": str(self.home)},
        )  # fmt: skip
        return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the program ended while it was starting"
        try:
            with urlopen(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the program did not become ready")


@pytest.fixture(scope="session")
def program() -> Iterator[Program]:
    home = Path(tempfile.mkdtemp(prefix="briefly-browser-"))
    port, password = _free_port(), secrets.token_urlsafe(24)
    running = Program(f"http://127.0.0.1:{port}", "ana@example.com", password, home)
    environment = os.environ | {
        "BRIEFLY_HOME": str(home), "PORT": str(port), "ADMIN_EMAIL": running.email, "ADMIN_PASSWORD": password,
    }  # fmt: skip
    log = (home / "up.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "briefly_admin.cli", "up"], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    try:
        _wait(running.url, process)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            log.close()
            shutil.rmtree(home, ignore_errors=True)


@dataclass
class Visitor:
    """One person's browser: the page, and everything that went wrong in it."""

    page: Page
    program: Program
    faults: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)
    """Answers of 400 and above that the test provokes."""

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"{self.page.url}: {error}"))
        self.page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not (self.expected and "status of" in message.text):
            self.faults.append(f"{self.page.url}: {message.text}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.faults.append(f"{response.url}: {response.status}")

    def go(self, path: str) -> None:
        self.page.goto(self.program.url + path)

    def sign_in(self, email: str, password: str) -> None:
        self.go("/sign-in")
        self.page.fill("input[name=email]", email)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(f"{self.program.url}/")


@pytest.fixture
def visit(browser: Browser, program: Program) -> Iterator[Callable[..., Visitor]]:
    """Opens a browser of its own for each visitor; at the end none may have seen an error."""
    visitors: list[Visitor] = []

    def open_one(*, width: int = 1280, scheme: str = "light") -> Visitor:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_default_timeout(30_000)
        visitors.append(Visitor(context.new_page(), program))
        return visitors[-1]

    yield open_one
    for visitor in visitors:
        visitor.page.context.close()
    assert [fault for visitor in visitors for fault in visitor.faults] == []
