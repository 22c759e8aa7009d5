"""The command `briefly-admin`: every deed of the pages and endpoints, from a terminal or a script."""

import sys
from typing import Any, NoReturn

import click

from briefly_admin import __version__
from briefly_admin.domain.errors import BrieflyError

INTERRUPTED = 130


class Group(click.Group):
    """Turns our errors into one line and an exit code; never a traceback for what a user can cause."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command line and exit."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except BrieflyError as error:
            click.echo(f"briefly-admin: {error}", err=True)
            code = error.exit_code
        except click.ClickException as error:
            error.show()
            code = 2
        except (click.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="briefly-admin")
def main() -> None:
    """Check, back up, migrate, verify and roll back PostgreSQL data.

    Exit codes: 0 done · 1 failed · 2 wrong usage or setting · 3 blocking findings · 4 refused · 5 backup damaged or key
    missing · 130 interrupted.
    """


def _register() -> None:
    from briefly_admin.cli import audit, backups, data, people, processes, rollback, runs, selftest

    for module in (processes, runs, data, backups, rollback, selftest, audit, people):
        for command in module.COMMANDS:
            main.add_command(command)


_register()
