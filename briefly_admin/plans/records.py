"""What one row of each table must satisfy once it is repaired, judged on the JSON of `to_jsonb(row)`.

- Ids: data.md makes them uuid; databases in use have text or integer keys as well, and what a run needs of an
  id is that it names one row. So a non-empty text or an integer passes; what it refers to is the foreign keys' rule.
- Moments come as ISO 8601 with an offset. ±infinity, BC and years above 9999 are no Python datetimes: they fail.
- A pgvector value comes as the text '[1,2,…]'. Its dimension is a notice of the plan, never a rule here.
- Columns that a database has beyond these are kept and not judged.
"""

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from briefly_admin.plans.base import SqlValidator

TIERS: Final = ("free", "pro", "pro_byok")
SUBSCRIPTION_STATUSES: Final = ("active", "canceled", "past_due", "trialing")
PROCESSING_STATUSES: Final = ("pending", "processing", "completed", "failed")
ROLES: Final = ("user", "assistant")
PROVIDERS: Final = ("google", "microsoft")

_SECRET: Final = {"secret": True}


class Identifier(fields.Field[str | int]):
    """An id: a non-empty text (a uuid is one in JSON) or an integer."""

    default_error_messages = {"invalid": "Not an id: a non-empty text or an integer is."}  # noqa: RUF012 - marshmallow declares it so

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | int:
        del attr, data, kwargs
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.make_error("invalid")
        return value


class Embedding(fields.Field[Any]):
    """A vector: the text '[…]' that pgvector's JSON is, or a list of numbers, of any dimension."""

    default_error_messages = {"invalid": "Not a vector."}  # noqa: RUF012 - marshmallow declares it so

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        del attr, data, kwargs
        as_text = isinstance(value, str) and value.startswith("[") and value.endswith("]")
        as_list = isinstance(value, list) and all(type(number) in {int, float} for number in value)
        if not (as_text or as_list):
            raise self.make_error("invalid")
        return value


class StoragePath(SqlValidator):
    r"""A path below the store's root: not empty, no leading slash, no backslash, no `..` segment."""

    condition = (
        r"({value} <> '' AND left({value}, 1) <> '/' AND strpos({value}, '\') = 0 "
        # The usual path needs no regular expression.
        r"AND ({value} NOT LIKE '%..%' OR {value} !~ '(^|/)\.\.(/|$)'))"
    )

    def __call__(self, value: str) -> str:
        """The value. Raises ValidationError."""
        if value == "" or value.startswith("/") or "\\" in value or ".." in value.split("/"):
            raise ValidationError("Not a path below the store's root.")
        return value


def _id(**kwargs: Any) -> Identifier:
    return Identifier(required=True, **kwargs)


def _text(**kwargs: Any) -> fields.String:
    return fields.String(required=True, **kwargs)


def _word(words: tuple[str, ...]) -> fields.String:
    return fields.String(required=True, validate=validate.OneOf(words))


def _count() -> fields.Integer:
    return fields.Integer(required=True, strict=True, validate=validate.Range(min=0))


def _moment() -> fields.DateTime:
    return fields.DateTime(required=True, format="iso")


class Record(Schema):
    """The base: unknown columns are left out of the verdict."""

    class Meta:
        """marshmallow's options."""

        unknown = EXCLUDE


class UserRecord(Record):
    """A row of `users`."""

    id = _id()
    email = fields.Email(required=True)
    created_at = _moment()
    updated_at = _moment()
    subscription_tier = _word(TIERS)
    subscription_status = _word(SUBSCRIPTION_STATUSES)
    stripe_customer_id = fields.String(allow_none=True)
    usage_documents = _count()
    usage_chat_messages = _count()
    usage_api_calls = _count()
    settings = fields.Dict(required=True)


class FileRecord(Record):
    """A row of `file_metadata`."""

    id = _id()
    user_id = _id()
    filename = _text()
    file_size = _count()
    file_type = _text()
    upload_date = _moment()
    processing_status = _word(PROCESSING_STATUSES)
    chunk_count = _count()
    embedding_count = _count()
    storage_path = fields.String(required=True, validate=StoragePath())
    metadata = fields.Dict(required=True)


class ChunkRecord(Record):
    """A row of `document_chunks`."""

    id = _id()
    file_id = _id()
    user_id = _id()
    chunk_text = _text(metadata=_SECRET)
    chunk_index = _count()
    embedding_id = fields.String(allow_none=True)
    embedding = Embedding(allow_none=True)
    created_at = _moment()


class ConversationRecord(Record):
    """A row of `conversations`."""

    id = _id()
    user_id = _id()
    title = _text()
    created_at = _moment()
    updated_at = _moment()
    message_count = _count()


class MessageRecord(Record):
    """A row of `chat_messages`."""

    id = _id()
    conversation_id = _id()
    user_id = _id()
    role = _word(ROLES)
    content = _text(metadata=_SECRET)
    sources = fields.List(fields.String(), required=True)
    created_at = _moment()


class TokenRecord(Record):
    """A row of `oauth_tokens`."""

    id = _id()
    user_id = _id()
    provider = _word(PROVIDERS)
    access_token = _text(metadata=_SECRET)
    refresh_token = fields.String(allow_none=True, metadata=_SECRET)
    expires_at = _moment()
    created_at = _moment()
    updated_at = _moment()


class UsageRecord(Record):
    """A row of `usage_logs`."""

    id = _id()
    user_id = _id()
    action = _text()
    resource_type = _text()
    resource_id = Identifier(allow_none=True)
    metadata = fields.Dict(required=True)
    created_at = _moment()


class SettingRecord(Record):
    """A row of `user_settings`; `value` is any JSON but null."""

    id = _id()
    user_id = _id()
    key = _text()
    value = fields.Raw(required=True, allow_none=False)
    created_at = _moment()
    updated_at = _moment()
