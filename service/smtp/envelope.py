"""Who a mail is from and for, as MAIL and RCPT say it. Pure; the last guard before the wire.

Addresses were parsed long before; here anything that could change a command is refused, whoever let it through:
`d@e.f> NOTIFY=SUCCESS` must never reach a server, not even shortened.
"""

import re
from collections.abc import Mapping, Sequence

import idna
import msgspec

from service.smtp.body import Body
from service.smtp.errors import Backoff, Kind, SmtpError
from service.smtp.phases import Phase

_LOCAL = re.compile(
    r"[^\s\x00-\x20\x7f-\x9f<>()\[\]:;,@\\\"\ud800-\udfff]+|\"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*\""
)
_DOMAIN = re.compile(
    r"(?=.{1,255}$)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?)*", re.IGNORECASE
)
_LITERAL = re.compile(r"\[[0-9a-f:.]+\]|\[IPv6:[0-9a-f:.]+\]", re.IGNORECASE)


_ENVID = re.compile(r"[A-Za-z0-9._-]{0,100}")  # RFC 3461 allows more, encoded
_NOTIFY = frozenset({"FAILURE", "DELAY", "SUCCESS"})
_NOTHING: Mapping[str, str] = {}


class Envelope(msgspec.Struct, frozen=True):
    """A sender (empty for none) and one or more recipients, checked; `utf8` if a local part needs SMTPUTF8.

    `envid`, `notify` and `originals` (the ORCPT of each recipient, empty for none) are said to a server that offers DSN
    (RFC 3461).
    """

    sender: str
    recipients: tuple[str, ...]
    paths: tuple[str, ...]
    utf8: bool
    envid: str = ""
    notify: tuple[str, ...] = ()
    originals: tuple[str, ...] = ()


def envelope(
    sender: str,
    recipients: Sequence[str],
    envid: str = "",
    notify: Sequence[str] = (),
    originals: Mapping[str, str] = _NOTHING,
) -> Envelope:
    """Check a sender and its recipients; each recipient counts once.

    Raises SmtpError (permanent, `invalid_address`) that names every faulty one.
    """
    if not recipients:
        raise _invalid(Phase.RCPT, "a mail needs at least one recipient")
    sender_path = _path(sender) if sender else ""
    if sender_path is None:
        raise _invalid(Phase.MAIL, f"the sender {sender!r} is not one plain address")
    recipients = tuple(dict.fromkeys(recipients))
    paths = [_path(recipient) for recipient in recipients]
    faults = [repr(given) for given, path in zip(recipients, paths, strict=True) if path is None]
    if faults:
        raise _invalid(Phase.RCPT, f"not one plain address: {', '.join(faults)}")
    good = tuple(path for path in paths if path is not None)
    if not _ENVID.fullmatch(envid) or not _NOTIFY.issuperset(notify):
        raise _invalid(Phase.MAIL, "the envelope id is letters and digits; notify is FAILURE, DELAY or SUCCESS")
    utf8 = not all(path.isascii() for path in (sender_path, *good))
    quoted = tuple(_xtext(originals.get(recipient, "")) for recipient in recipients) if originals else ()
    return Envelope(sender_path, recipients, good, utf8, envid, tuple(notify), quoted)


def commands(mail: Envelope, body: Body, offers: Mapping[str, str]) -> tuple[bytes, list[bytes]]:
    """Return the MAIL command and one RCPT command per recipient, with the parameters that `offers` (EHLO) allow.

    Raises SmtpError (permanent) if the server cannot take this mail at all: `message_too_large`, `eai_unsupported`,
    `eight_bit_unsupported`.
    """
    words = [f"MAIL FROM:<{mail.sender}>"]
    if "size" in offers:
        _check_size(body.size, offers["size"])
        words.append(f"SIZE={body.size}")
    if body.eight_bit:
        if "8bitmime" not in offers:
            raise _unfit("eight_bit_unsupported", "the mail has bytes above 127 and the server does not offer 8BITMIME")
        words.append("BODY=8BITMIME")
    if mail.utf8 or body.utf8_headers:
        if "smtputf8" not in offers:
            raise _unfit("eai_unsupported", "the mail needs SMTPUTF8 (RFC 6531) and the server does not offer it")
        words.append("SMTPUTF8")
    if "dsn" not in offers or not mail.notify:
        return " ".join(words).encode(), [f"RCPT TO:<{path}>".encode() for path in mail.paths]
    words += ["RET=HDRS", *([f"ENVID={mail.envid}"] if mail.envid else [])]
    notify = f" NOTIFY={','.join(mail.notify)}"
    reports = [f"{notify} ORCPT=rfc822;{original}" if original else notify for original in mail.originals]
    return " ".join(words).encode(), [
        f"RCPT TO:<{path}>{report}".encode()
        for path, report in zip(mail.paths, reports or [notify] * len(mail.paths), strict=True)
    ]


def _xtext(address: str) -> str:
    """Encode an ASCII address as RFC 3461 (section 4) has it; anything else, a control too, is left out."""
    if not address.isascii() or not address.isprintable():
        return ""
    return "".join(c if c not in "+= " else f"+{ord(c):02X}" for c in address)


def _path(address: str) -> str | None:
    """Return the address as a path without its brackets, the domain in ASCII; None if it is not a single address."""
    local, at, domain = address.rpartition("@")
    if not at or len(local.encode("utf-8", "replace")) > 64 or not _LOCAL.fullmatch(local):
        return None
    if _LITERAL.fullmatch(domain):
        return address
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError:
            return None
    return f"{local}@{domain}" if _DOMAIN.fullmatch(domain) else None


def _check_size(size: int, limit: str) -> None:
    if limit.isdigit() and 0 < int(limit) < size:
        raise _unfit("message_too_large", f"the mail has {size} bytes and the server takes {limit}")


def _unfit(reason: str, text: str) -> SmtpError:
    return SmtpError(Phase.MAIL, None, text, Kind.PERMANENT, reason=reason, backoff=Backoff.NEVER)


def _invalid(phase: Phase, text: str) -> SmtpError:
    return SmtpError(phase, None, text, Kind.PERMANENT, reason="invalid_address", backoff=Backoff.NEVER)
