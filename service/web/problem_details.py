"""Every error as `application/problem+json` (RFC 9457): ours, Litestar's, Postgres', and the unforeseen."""

from http import HTTPStatus
from typing import Any

import asyncpg
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from callboard_workers.errors import Overloaded
from service.core.errors import BadRequest, Fault, Invalid, ServiceError, TooLarge, Unavailable
from service.db.engine import cause, is_away
from service.web.json_response import Quick

log = structlog.get_logger("service.web")

MEDIA = "application/problem+json"
AWAY = "The database does not answer. Try again: with an Idempotency-Key nothing is done twice."


class Problem(msgspec.Struct, omit_defaults=True):
    """The body of every error. `code` is stable; `errors` names each fault by its JSON pointer."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[Fault, ...] = ()


def problem(request_id: str, error: ServiceError) -> Problem:
    """Make the body of `error`."""
    return Problem(
        type=f"/errors/{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        errors=error.errors,
    )


def encode(request_id: str, error: ServiceError) -> bytes:
    """Make the body of `error` as bytes."""
    return msgspec.json.encode(problem(request_id, error))


def translate(error: Exception) -> ServiceError:
    """Turn any exception into the error it is to the caller; what nobody foresaw becomes a 500 without internals."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, ValidationException):
        return _parameters(error)
    if isinstance(error, HTTPException) and error.status_code < 500:
        return _client(error)
    return _infrastructure(error)


def _infrastructure(error: Exception) -> ServiceError:
    if isinstance(error, Overloaded):
        return Unavailable("Too much is waiting here; nothing was accepted. Try again.", code="overloaded")
    if isinstance(cause(error), asyncpg.DataError):
        return Invalid((), "The request holds a value that cannot be stored.")
    if is_away(error):
        return Unavailable(AWAY, code="database-away")
    return ServiceError("Something went wrong here. Quote the request_id when you report it.")


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer `error`; Litestar calls this for every exception of a handler, a guard or the router."""
    known = translate(error)
    if known.status >= 500:
        note(error, known)
    return Quick(known.status, encode(str(request.scope.get("request_id", "")), known), known.headers)


def note(error: BaseException, known: ServiceError) -> None:
    """Log what went wrong: a short warning for an absence, the traceback for a bug."""
    if known.status == 500:
        log.error("request_failed", exc_info=error)
    else:
        log.warning("request_refused", code=known.code, error=f"{type(error).__name__}: {error}"[:300])


HANDLERS: ExceptionHandlersMap = {Exception: respond, HTTPException: respond, 500: respond}


def _client(error: HTTPException) -> ServiceError:
    status = error.status_code
    if status == 413:
        return TooLarge("The body is larger than this route takes.")
    phrase = HTTPStatus(status).phrase
    details = {404: "There is nothing at this path.", 405: "This path does not take this method; see `Allow`."}
    return ServiceError(
        details.get(status, _plain(error.detail)),
        status=status,
        code=phrase.lower().replace(" ", "-"),
        title=phrase.capitalize(),
        headers={name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"},
    )


def _parameters(error: ValidationException) -> ServiceError:
    extra: Any = error.extra
    items = [item for item in (extra if isinstance(extra, list) else []) if isinstance(item, dict)]
    if any(item.get("key") == "data" for item in items):
        return BadRequest("The body must be a JSON object.", code="malformed-json")
    named = [Fault(f"/{item.get('key', '')}", _plain(str(item.get("message", "")))) for item in items]
    if any(item.get("source") == "query" for item in items):
        return ServiceError("The query string is wrong; see `errors`.", status=400, code="bad-query", errors=named)
    return Invalid(named, _plain(error.detail))


def _plain(detail: str) -> str:
    return detail.splitlines()[0][:300] if detail else ""
