"""Examples of requests and answers, for the documentation."""

from typing import Any, Final

_BACKUP: Final = "backup_1763812345678"
_PREVIEW: Final = "0b5c4b0c-9a9b-4a5e-8f5e-3f2a1b0c9d8e"
_CONVERSATION: Final = "7d0c0c1e-6a52-4f0e-9a55-9a3a4c2b1d00"

ROLLBACK: Final[dict[str, Any]] = {
    "exact": {
        "summary": "Everything as it was at the backup",
        "value": {"backupId": _BACKUP, "confirm": True},
    },
    "confirmed": {
        "summary": "Two tables, as a preview told",
        "value": {
            "backupId": _BACKUP, "confirm": True, "mode": "exact", "tables": ["conversations", "chat_messages"],
            "reason": "Titles were cut", "previewId": _PREVIEW, "allowance": 10, "allow": ["public.invoices"],
        },
    },
    "keep": {
        "summary": "Undo only what the migration did, and decide about what others wrote since",
        "value": {
            "backupId": _BACKUP, "confirm": True, "mode": "keep", "previewId": _PREVIEW,
            "rules": {"edited": "keep", "created": "keep", "deleted": "leave"},
            "settled": {
                "conversations": [
                    {"key": [_CONVERSATION], "how": "edit", "values": {"title": "Both titles", "summary": None}},
                    {"key": ["51d0a8a4-3c38-4ed4-8f4c-0a3cf4b4a111"], "how": "restore"},
                ]
            },
        },
    },
}  # fmt: skip
"""Bodies of `POST /api/migration/rollback`."""

PREVIEW: Final[dict[str, Any]] = {
    "all": {"summary": "All tables of the backup", "value": {}},
    "some": {"summary": "Some of them", "value": {"tables": ["conversations", "chat_messages"]}},
}
"""Bodies of `POST /api/v1/backups/<id>/preview`."""

_PREVIEWED: Final[dict[str, Any]] = {
    "tables": {"conversations": {"same": 940, "update": 61, "insert": 1, "delete": 2}},
    "classes": {"conversations": {"untouched": 940, "migrated": 58, "edited": 3, "created": 2, "deleted": 1}},
    "keep": {"conversations": {"update": 58}},
    "left_out": {"conversations": ["updated_at"]},
    "derived": {"conversations": ["message_count"]},
    "lost": [{"table": "conversations", "column": "archived_at", "rows": 4}],
    "samples": {
        "conversations": [
            {
                "class": "edited", "key": [_CONVERSATION],
                "columns": [
                    {"name": "title", "before": " Plans", "migrated": "Plans", "now": "Both titles", "secret": False}
                ],
            }
        ]
    },
    "outside": [
        {
            "table": "public.invoices", "constraint": "invoices_conversation_id_fkey", "action": "CASCADE",
            "of": "conversations", "rows": 3, "blocks": False,
            "text": "3 rows of public.invoices would be deleted with rows of conversations.",
        }
    ],
    "schema_changes": ["conversations: index conversations_user_id_idx"],
}  # fmt: skip

PREVIEWED: Final[dict[str, Any]] = {
    "success": True,
    "data": {
        "id": _PREVIEW, "number": 43, "name": "unified preview 43", "kind": "preview", "status": "completed",
        "sentence": "Done: exact would write 64 rows, keep 58; 3 edited since.", "report": {"preview": _PREVIEWED},
    },
    "message": "",
}  # fmt: skip
"""An answer of `GET /api/v1/runs/<id>`, of a preview; cut to what is told of every run and its report."""

_USER: Final = "5a0e6b7c-4c1d-4a55-9a53-0d3f5c1f7a10"
_TIER: Final = "subscription_tier"
_ONE_OF: Final = "must be one of: free, pro, pro_byok"


def _answer(data: dict[str, Any], message: str = "") -> dict[str, Any]:
    return {"success": True, "data": data, "message": message}


_FINDING: Final[dict[str, Any]] = {
    "table": "users", "field": _TIER, "rule": "one_of", "class": "blocking", "count": 61,
    "message": f"users.{_TIER} {_ONE_OF}", "samples": [{"key": _USER, "value": "gold"}],
}  # fmt: skip
_GONE: Final = _FINDING | {
    "field": "email",
    "rule": "email",
    "count": 4,
    "message": "users.email must be an e-mail address",
}

FINDINGS: Final = _answer(
    {
        "run": _PREVIEW, "number": 43, "phase": "validate", "findings": [_FINDING | {"before": 75}], "count": 1,
        "trend": {"run": 41, "gone": [_GONE]},
    }
)  # fmt: skip
"""An answer of `GET /api/v1/runs/<id>/findings`."""

CAUSES: Final = _answer(
    {
        "causes": [
            {
                "run": _PREVIEW, "number": 43, "table": "users", "field": _TIER, "cause": "one_of",
                "message": f"users.{_TIER} {_ONE_OF}", "rows": 61, "corrected": 1, "skipped": 2,
                "replayable": True,
            }
        ],
        "count": 1,
    }
)  # fmt: skip
"""An answer of `GET /api/v1/quarantine/causes`."""

QUARANTINE: Final = _answer(
    {
        "rows": [
            {
                "table": "users", "key": [_USER], "field": _TIER, "cause": "one_of",
                "message": f"users.{_TIER} {_ONE_OF}", "sqlstate": None, "constraint": None,
                "closed": False, "corrected_at": "2025-11-22T10:15:00Z", "skipped": None,
            }
        ],
        "count": 1,
        "next": None,
    }
)  # fmt: skip
"""An answer of `GET /api/v1/quarantine`."""

ROW: Final = _answer(
    {
        "table": "users", "key": [_USER], "version": "901:(0,7)",
        "fields": [
            {
                "name": _TIER, "input": "choice", "type": "text", "value": "gold", "secret": False, "key": False,
                "nullable": False, "choices": ["free", "pro", "pro_byok"], "rules": [_ONE_OF],
                "faults": [_ONE_OF], "repaired": None,
            }
        ],
        "faults": [], "blocks": True, "recorded": True, "skipped": None,
    }
)  # fmt: skip
"""An answer of `GET /api/v1/rows/users`, cut to one column."""

UNSKIP: Final[dict[str, Any]] = {"key": [_USER]}
"""A body of `POST /api/v1/rows/users/unskip`; the others begin with it."""
CHECK: Final = UNSKIP | {"changes": {_TIER: "pro", "stripe_customer_id": None}}
CORRECT: Final = UNSKIP | {"version": "901:(0,7)", "changes": {_TIER: "pro"}}
SKIP: Final = UNSKIP | {"reason": "A test account; it goes in spring."}

FIX_PREVIEW: Final[dict[str, Any]] = {
    "table": "users",
    "field": _TIER,
    "rule": "one_of",
    "changes": {_TIER: "free"},
}
"""A body of `POST /api/v1/fixes/preview`."""
FIX: Final = FIX_PREVIEW | {"run": "43", "expected": 61}
FIXED: Final = _answer(
    {
        "rows": 61, "cured": 61, "refused": {},
        "samples": [{"key": [_USER], "changes": {_TIER: {"before": "gold", "after": "free"}}}],
        "more": 0, "recorded": True,
    }
)  # fmt: skip
"""What both of them answer."""

REPLAY: Final[dict[str, Any]] = {
    "all": {"summary": "All that are cured", "value": {}},
    "cause": {
        "summary": "Those of one cause",
        "value": {"table": "users", "field": _TIER, "cause": "one_of"},
    },
    "row": {"summary": "One row", "value": {"table": "users", "key": [_USER]}},
}
"""Bodies of `POST /api/v1/runs/<id>/replay`."""
