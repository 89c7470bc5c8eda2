"""Which AUTH method to use (RFC 4954): never one that shows the password on an open line."""

from collections.abc import Awaitable, Callable, Sequence

import aiosmtplib

from service.smtp.connect_errors import needs_mending
from service.smtp.errors import SmtpError
from service.smtp.phases import Phase

_ENCRYPTED = ("plain", "login", "cram-md5")
_IN_CLEAR = ("cram-md5",)
# "I do not do that one" (RFC 4954, section 6): another method may work. A 535 is not tried twice: accounts get locked.
_UNKNOWN_METHOD = frozenset({500, 501, 502, 504, 534})


async def authenticate(smtp: aiosmtplib.SMTP, username: str, password: str, *, secret: bool, timeout: float) -> str:
    """Log in and return the method used; `secret` says that passwords may be shown (an encrypted line, or allowed).

    Raises SmtpError, or the library's SMTPException.
    """
    methods = choose(smtp.server_auth_methods, secret=secret)
    if not methods:
        raise _none_fits(smtp.server_auth_methods)
    says: dict[str, Callable[..., Awaitable[object]]] = {
        "plain": smtp.auth_plain,
        "login": smtp.auth_login,
        "cram-md5": smtp.auth_crammd5,
    }
    for method in methods:
        try:
            await says[method](username, password, timeout=timeout)
        except aiosmtplib.SMTPAuthenticationError as error:
            if method == methods[-1] or error.code not in _UNKNOWN_METHOD:
                raise
        else:
            break
    return method


def choose(offered: Sequence[str], *, secret: bool) -> list[str]:
    """Return the methods to try, best first. Pure."""
    return [method for method in (_ENCRYPTED if secret else _IN_CLEAR) if method in offered]


def _none_fits(offered: Sequence[str]) -> SmtpError:
    if choose(offered, secret=True):
        text = "the server offers only methods that would show the password, and the connection is not encrypted"
        return needs_mending(Phase.AUTH, "auth_needs_tls", text)
    said = ", ".join(offered) or "none"
    return needs_mending(Phase.AUTH, "auth_unsupported", f"no AUTH method in common; the server offers: {said}")
