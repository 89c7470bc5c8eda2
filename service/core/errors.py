"""The tree of errors that the service tells its callers, each with its HTTP status and a stable code.

Every error leaves the service as `application/problem+json` (RFC 9457): the edge renders it, slices only raise it.
"""

from collections.abc import Mapping, Sequence

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with a request: `pointer` is a JSON pointer (RFC 6901) into the body, or `""` for all of it."""

    pointer: str
    message: str


class ErrorOut(msgspec.Struct, frozen=True, kw_only=True):
    """Why the last attempt at something ended badly, as the API tells it.

    `code` is stable, `detail` is for people; `retryable`: another try, by itself or asked for, may go well.
    """

    code: str
    detail: str
    retryable: bool = False


class ServiceError(Exception):
    """An error with an answer: HTTP `status`, a stable `code` in kebab-case, a `detail` that says what to do next."""

    status: int = 500
    code: str = "internal-error"
    title: str = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        code: str | None = None,
        title: str | None = None,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status or self.status
        self.code = code or self.code
        self.title = title or self.title
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


class BadRequest(ServiceError):
    """The request cannot be read: malformed JSON, a tampered cursor, a limit out of range."""

    status, code, title = 400, "bad-request", "Bad request"


class Unauthenticated(ServiceError):
    """No key, an unknown key, an expired or a revoked one."""

    status, code, title = 401, "unauthenticated", "Unauthenticated"

    def __init__(self, detail: str, **more: object) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="callboard"'}, **more)  # type: ignore[arg-type]


class Forbidden(ServiceError):
    """A good key that may not do this."""

    status, code, title = 403, "forbidden", "Forbidden"


class NotFound(ServiceError):
    """No such thing, or it belongs to another tenant: the two are told apart by nobody."""

    status, code, title = 404, "not-found", "Not found"


class Conflict(ServiceError):
    """The object's state forbids this now."""

    status, code, title = 409, "conflict", "Conflict"


class TooLarge(ServiceError):
    """The body is larger than its route takes."""

    status, code, title = 413, "body-too-large", "Body too large"


class UnsupportedMedia(ServiceError):
    """Not `application/json`, or an encoded body."""

    status, code, title = 415, "unsupported-media-type", "Unsupported media type"


class Invalid(ServiceError):
    """The request was read but breaks its rules; `errors` names every fault at once."""

    status, code, title = 422, "invalid", "Invalid request"

    def __init__(self, errors: Sequence[Fault], detail: str = "", *, code: str | None = None) -> None:
        faults = tuple(errors)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(detail or f"The request has {count}; see `errors`.", code=code, errors=faults)


class TooManyRequests(ServiceError):
    """A rate or a quota is used up; `retry_after` is in seconds."""

    status, code, title = 429, "rate-limited", "Too many requests"

    def __init__(self, detail: str, *, retry_after: int, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after)})


class Unavailable(ServiceError):
    """Something the service needs is away for the moment; it may answer after `retry_after` seconds."""

    status, code, title = 503, "unavailable", "Service unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after)})
