"""RunConfig: what an admin may choose about a run. One table of fields serves JSON, forms and the command."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

from briefly_admin.domain.errors import InvalidRequest

AUTO: Final = "auto"
BatchSize = int | Literal["auto"]
"""Rows a batch, or `auto`: as many as take about half a second."""
_SHOWN: Final = 10**18
"""Numbers from here on are not repeated: they can have thousands of digits."""


@dataclass(frozen=True, slots=True)
class ConfigField:
    """One field: its JSON name, its type, its bounds, and what it means in words."""

    attribute: str
    name: str
    kind: Literal["integer", "automatic", "boolean", "choice"]
    """automatic: an integer, or "auto"."""
    help: str
    minimum: int = 0
    maximum: int = 0
    choices: tuple[str, ...] = ()
    unit: str = ""
    live: bool = False
    """May be changed while the run is running or paused."""

    def fault(self, value: object) -> str | None:
        """What is wrong with a JSON value, or None. Integers are JSON integers: '100', 1.5, true are faults."""
        if self.kind == "boolean":
            return None if isinstance(value, bool) else "Must be true or false."
        if self.kind == "choice":
            return None if value in self.choices else f"Must be one of: {', '.join(self.choices)}."
        if self.kind == "automatic" and value == AUTO:
            return None
        bounds = f"from {self.minimum:,} to {self.maximum:,}"
        also = f', or "{AUTO}"' if self.kind == "automatic" else ""
        if isinstance(value, bool) or not isinstance(value, int):
            return f"Must be an integer {bounds}{also}."
        if not self.minimum <= value <= self.maximum:
            got = f"; got {value:,}" if abs(value) < _SHOWN else ""
            return f"Must be {bounds}{also}{got}."
        return None


FIELDS: Final = (
    ConfigField(
        "batch_size", "batchSize", "automatic",
        'Rows a batch; "auto" finds by itself how many take about half a second.', 1, 10_000, unit="rows", live=True,
    ),
    ConfigField("max_retries", "maxRetries", "integer", "Tries after the first, for transient failures.", 0, 10),
    ConfigField(
        "retry_delay", "retryDelay", "integer",
        "First wait before another try; doubles each time, with jitter, at most 60 s.", 0, 60_000, unit="ms",
    ),
    ConfigField("validate_data", "validateData", "boolean", "Validate first; blocking findings stop the run."),
    ConfigField(
        "create_backup", "createBackup", "boolean",
        "Take and prove a sealed backup first. Without one, rollback is not available.",
    ),
    ConfigField("dry_run", "dryRun", "boolean", "Rehearse: every batch is rolled back, nothing is committed."),
    ConfigField(
        "sample_rows", "sampleRows", "integer", "Rows a table that a rehearsal goes through.", 1, 10_000_000,
        unit="rows",
    ),
    ConfigField(
        "on_invalid", "onInvalid", "choice",
        "What to do with rows that the repairs do not cure: stop the run, or skip them into quarantine.",
        choices=("stop", "skip"),
    ),
    ConfigField("max_skipped", "maxSkipped", "integer", "More skipped rows than this fails the run.", 0, 1_000_000,
                unit="rows"),
    ConfigField("workers", "workers", "integer", "How many worker jobs may work on it at once.", 1, 64, live=True),
    ConfigField("pause", "pause", "integer", "Wait between batches.", 0, 10_000, unit="ms", live=True),
    ConfigField(
        "expect_quiet", "expectQuiet", "boolean",
        "Nobody else writes: any unexplained difference fails verification.",
    ),
    ConfigField("debug", "debug", "boolean", "Log each batch, and the SQL without its parameters."),
    ConfigField("log_level", "logLevel", "choice", "What the run's log keeps.",
                choices=("debug", "info", "warning", "error")),
)  # fmt: skip
BY_NAME: Final = {field.name: field for field in FIELDS}


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a run goes; times in milliseconds. The defaults are those of engine.md."""

    batch_size: BatchSize = 100
    max_retries: int = 3
    retry_delay: int = 1000
    validate_data: bool = True
    create_backup: bool = True
    dry_run: bool = False
    sample_rows: int = 100_000
    on_invalid: str = "stop"
    max_skipped: int = 1000
    workers: int = 1
    pause: int = 0
    expect_quiet: bool = False
    debug: bool = False
    log_level: str = "info"

    def with_json(self, data: Mapping[str, Any]) -> "RunConfig":
        """A config with the fields of a JSON object put over these.

        Raises InvalidRequest that names every unknown or out-of-bounds field.
        """
        details: dict[str, list[str]] = {}
        for name, value in data.items():
            field = BY_NAME.get(name)
            fault = f"Unknown field; known are {', '.join(BY_NAME)}." if field is None else field.fault(value)
            if fault:
                details[name] = [fault]
        if details:
            texts = "; ".join(f"{name}: {' '.join(fault)}" for name, fault in details.items())
            raise InvalidRequest(f"The configuration is not valid: {texts}", details=details)
        return replace(self, **{BY_NAME[name].attribute: value for name, value in data.items()})

    def to_json(self) -> dict[str, Any]:
        """As a JSON object under the JSON names."""
        names = {field.attribute: field.name for field in FIELDS}
        return {names[f.name]: getattr(self, f.name) for f in fields(self)}
