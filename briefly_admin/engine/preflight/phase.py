"""All checks, and the phase preflight of a run: red stops it before anything is changed."""

from collections.abc import Iterator
from typing import Any, Final

import psycopg

from briefly_admin.domain.checks import Check, Colour, worst
from briefly_admin.domain.errors import BrieflyError, PreflightFailed
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.preflight.constraints import check_constraints
from briefly_admin.engine.preflight.inputs import PreflightInputs
from briefly_admin.engine.preflight.kept import store_room
from briefly_admin.engine.preflight.servers import around, of_server, target_reachable
from briefly_admin.engine.preflight.tables import of_tables, read_site, remarks
from briefly_admin.engine.retry import backoff, describe

_LOST: Final = "target_lost"
_STAYS: Final = "The target stays in reach"
_OUT_OF_REACH: Final = frozenset({_LOST, "target_reachable"})


def check_all(inputs: PreflightInputs) -> list[Check]:
    """Every check that `inputs` allows. Never raises: a check that cannot look is red or amber and says why.

    Where the target does not answer, that is the one red check of it, and those that depend on it are left out.
    """
    checks = [*around(inputs)]
    try:
        checks.append(target_reachable(inputs.target))
        if checks[-1].colour is not Colour.RED:
            checks.extend(_of_target(inputs))
    except BrieflyError as error:
        checks.append(Check(_LOST, _STAYS, Colour.RED, error.message, error.remedy))
    except psycopg.Error as error:
        checks.append(Check(_LOST, _STAYS, Colour.RED, f"{describe(error)}.", "Run the checks again."))
    return checks


def _of_target(inputs: PreflightInputs) -> Iterator[Check]:
    with inputs.target.session(bulk=True) as connection:
        yield from of_server(connection, inputs.target)
        site = read_site(connection, inputs.plan)
        yield from of_tables(site)
        yield check_constraints(site)
        yield from remarks(site)
        if inputs.store is not None:
            yield store_room(connection, inputs, [table.oid for table in site.catalog.values()])


def run(context: RunContext) -> dict[str, Any]:
    """Check what a run needs: the target, the backup keys and the store; the result is `{colour, checks, amber}`.

    Raises PreflightFailed, which names every red check and its remedy; Stopped.
    """
    context.check_stop()
    context.report(Progress(Phase.PREFLIGHT))
    inputs = PreflightInputs(
        plan=context.plan,
        target=context.target,
        store=context.vault.store,
        key_sizes={name: len(key) for name, key in context.vault.keys.items()},
        now=context.now,
    )
    return concluded(context, _patiently_checked(context, inputs))


def concluded(context: RunContext, checks: list[Check]) -> dict[str, Any]:
    """Tells the log what is not green; the phase's result `{colour, checks, amber}`. Raises PreflightFailed."""
    for check in checks:
        if check.colour is not Colour.GREEN:
            level = "error" if check.colour is Colour.RED else "warning"
            context.journal.log(level, f"{check.title}: {check.found} {check.remedy}".strip(), Phase.PREFLIGHT)
    _refuse_red(checks)
    return {
        "colour": worst(checks),
        "amber": sum(check.colour is Colour.AMBER for check in checks),
        "checks": [check.to_json() for check in checks],
    }


def _patiently_checked(context: RunContext, inputs: PreflightInputs) -> list[Check]:
    """All checks; made again, as often as the config allows, while the target is out of reach: an attempt after the
    first one begins here as well, and must not end a run for a session that was lost.
    """
    config = context.config
    for tries in range(1, config.max_retries + 1):
        checks = check_all(inputs)
        if not any(check.name in _OUT_OF_REACH and check.colour is Colour.RED for check in checks):
            return checks
        context.sleep(backoff(tries, config.retry_delay, context.random))
    return check_all(inputs)


def _refuse_red(checks: list[Check]) -> None:
    """Raises PreflightFailed where a check is red."""
    reds = [check for check in checks if check.colour is Colour.RED]
    if reds:
        raise PreflightFailed(
            f"Nothing was changed: {' '.join(f'{check.title}? {check.found}' for check in reds)}",
            remedy=" ".join(check.remedy for check in reds),
        )
