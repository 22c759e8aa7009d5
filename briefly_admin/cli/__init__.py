"""The command `briefly-admin`: every deed of the pages and endpoints, from a terminal or a script."""

import gc
import io
import sys
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from briefly_admin import __version__
from briefly_admin.cli.printing import one_line
from briefly_admin.domain.errors import BrieflyError

PROGRAM: Final = "briefly-admin"
FAILED: Final = 1
INTERRUPTED: Final = 130


class Group(click.Group):
    """Turns errors into one line and an exit code; never a traceback for what a user can cause."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command line and exit."""
        _print_anything()
        kwargs |= {"standalone_mode": False, "prog_name": PROGRAM}
        try:
            code = super().main(*args, **kwargs)
        except BrieflyError as error:
            _complain(str(error))
            code = error.exit_code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        except OSError as error:
            _complain(f"{error.strerror or type(error).__name__}{f': {error.filename}' if error.filename else ''}.")
            code = FAILED
        except Exception as error:  # noqa: BLE001 - a fault of ours; its text could carry tenant data, its place cannot
            _complain(f"unexpected error: {type(error).__name__} at {_place(error)}. Please report it.")
            code = FAILED
        sys.exit(code if isinstance(code, int) else 0)


def _print_anything() -> None:
    """A terminal that lacks a character gets an escape for it, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(text: str) -> None:
    click.echo(f"{PROGRAM}: {one_line(text)}", err=True)


def _place(error: BaseException) -> str:
    """File and line of the innermost frame of ours."""
    package = Path(__file__).parent.parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(package)] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
def main() -> None:
    """Check, back up, migrate, verify and roll back PostgreSQL data.

    Exit codes: 0 done · 1 failed · 2 wrong usage or setting · 3 blocking findings · 4 refused · 5 backup damaged or key
    missing · 130 interrupted.
    """


def _register() -> None:
    from briefly_admin.cli import audit, backups, data, keys, people, processes, quarantine, rollback, runs, selftest

    for module in (processes, runs, data, quarantine, backups, keys, rollback, selftest, audit, people):
        for command in module.COMMANDS:
            main.add_command(command)


gc.disable()  # all that is imported stays: to look for garbage in it takes a quarter of the time
try:
    _register()
except KeyboardInterrupt:  # most of a second's imports: long enough to think better of it
    sys.exit(INTERRUPTED)
finally:
    gc.enable()
