"""When a connection is encrypted, and which certificates are believed."""

import ssl
from enum import StrEnum


class Tls(StrEnum):
    """How a connection is encrypted: never, by STARTTLS (required, never downgraded), or from the first byte."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


def client_context(*, verify: bool = True) -> ssl.SSLContext:
    """Build the TLS settings of a client: TLS 1.2 or newer, the system's authorities, the host's name checked.

    With `verify` off the connection is encrypted but anybody may stand at the other end. Reads files: call it in a
    thread.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def failure(error: BaseException) -> tuple[str, str] | None:
    """Return (reason, how to mend it) if an error, or what caused it, is a failed TLS handshake; else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "tls_certificate", f"the server's certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "tls_failed", f"the TLS handshake failed: {cause.reason or cause}"
        cause = cause.__cause__
    return None
