"""Keyset pages: an opaque cursor bound by HMAC to the tenant, the filter and the sort that it continues."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
from litestar.params import QueryParameter

from service.core.errors import BadRequest
from service.web.request import Request, integer

T = TypeVar("T")

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAC = 16  # bytes

Limit = Annotated[
    str | None,
    QueryParameter(name="limit", required=False, description="How many items: 1 to 200, 50 by default."),
]
Cursor = Annotated[
    str | None,
    QueryParameter(name="cursor", required=False, description="`next_cursor` of the page before, unchanged."),
]


class Page(msgspec.Struct, Generic[T]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None


class Pager:
    """Reads `limit` and `cursor` of one list request, and cuts its page.

    `after` is the key of the last item seen (a list of JSON values) or None; fetch `fetch` rows past it, in the order
    of `sort`, and hand them to `cut`.
    """

    def __init__(
        self,
        request: Request,
        limit: str | None,
        cursor: str | None,
        *,
        filters: Mapping[str, object] | None = None,
        sort: str = "-id",
    ) -> None:
        self.limit = DEFAULT_LIMIT if limit is None else integer("limit", limit, 1, MAX_LIMIT)
        self.fetch = self.limit + 1
        self._key = request.app.state.settings.secret_key.encode()
        self._bound = bound(request.user.tenant_id, request.scope["path"], filters or {}, sort)
        self.after: list[Any] | None = None if cursor is None else unseal(self._key, self._bound, cursor)

    def cut(self, rows: Sequence[T], key: "Any") -> Page[T]:
        """Make the page of `rows` (at most `fetch` of them); `key(row)` is the list of JSON values that sorts it."""
        if len(rows) <= self.limit:
            return Page(list(rows), None)
        items = list(rows[: self.limit])
        return Page(items, seal(self._key, self._bound, key(items[-1])))


def bound(tenant_id: UUID, path: str, filters: Mapping[str, object], sort: str) -> bytes:
    """Write down what a cursor belongs to."""
    given = sorted((name, str(value)) for name, value in filters.items() if value is not None)
    return msgspec.json.encode([str(tenant_id), path, given, sort])


def seal(secret: bytes, belongs: bytes, key: Sequence[Any]) -> str:
    """Make a cursor."""
    text = msgspec.json.encode(list(key))
    return _text(_mac(secret, belongs, text) + text)


def unseal(secret: bytes, belongs: bytes, cursor: str) -> list[Any]:
    """Open a cursor. Raises BadRequest where it was changed, or belongs to another list, filter or tenant."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raw = b""
    if _text(raw) != cursor or len(raw) <= MAC or not hmac.compare_digest(raw[:MAC], _mac(secret, belongs, raw[MAC:])):
        raise BadRequest(
            "The cursor is not one of this list: start again without it, and keep the filters unchanged.",
            code="bad-cursor",
        )
    key: list[Any] = msgspec.json.decode(raw[MAC:])
    return key


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _mac(secret: bytes, belongs: bytes, text: bytes) -> bytes:
    return hmac.new(secret, b"cursor\0" + belongs + b"\0" + text, hashlib.sha256).digest()[:MAC]
