"""What each refusal means: whether it is final, its name, how long to leave it alone."""

import re
from pathlib import Path

import pytest

from service import smtp
from service.smtp import Backoff, Kind, Phase
from service.smtp.reply import ServerReply, enhanced_code
from service.smtp.reply_rules import _RULES, classify, refusal
from tests.layout.repository import ROOT

T, P, A = Kind.TEMPORARY, Kind.PERMANENT, Kind.AMBIGUOUS

TABLE = [
    # before MAIL nothing is final
    ("banner", "421 4.7.0 too many connections from your host", T, "too_many_connections", Backoff.SHORT),
    ("banner", "554 5.7.1 Too many concurrent SMTP connections", T, "too_many_connections", Backoff.SHORT),
    ("banner", "421 mail.example.org service not available", T, "server_unavailable", Backoff.SHORT),
    ("banner", "554 5.7.1 your address is listed by Spamhaus", T, "host_blocked", Backoff.LONG),
    ("banner", "554 no SMTP service here", T, "refused", Backoff.NORMAL),
    ("ehlo", "550 5.7.1 who are you?", T, "policy_refused", Backoff.LONG),
    ("starttls", "454 4.7.0 TLS not available", T, "starttls_refused", Backoff.OPERATOR),
    ("auth", "535 5.7.8 authentication failed", T, "auth_failed", Backoff.OPERATOR),
    ("auth", "454 4.7.0 temporary authentication failure", T, "auth_unavailable", Backoff.NORMAL),
    ("auth", "421 4.7.0 too many failed attempts", T, "auth_unavailable", Backoff.NORMAL),
    ("auth", "534 5.7.9 application-specific password required", T, "auth_failed", Backoff.OPERATOR),
    # wrong settings kill no mail
    ("mail", "530 5.7.0 Must issue a STARTTLS command first", T, "tls_required", Backoff.OPERATOR),
    ("mail", "530 5.7.0 Authentication required", T, "auth_required", Backoff.OPERATOR),
    ("mail", "550 5.7.1 Client was not authenticated: authentication required", T, "auth_required", Backoff.OPERATOR),
    # MAIL
    ("mail", "553 5.1.8 sender domain does not exist", P, "sender_refused", Backoff.NEVER),
    ("mail", "501 5.1.7 bad sender address", P, "sender_refused", Backoff.NEVER),
    ("mail", "552 5.3.4 message size exceeds fixed limit", P, "message_too_large", Backoff.NEVER),
    ("mail", "452 4.3.1 insufficient system storage", T, "storage_full", Backoff.NORMAL),
    ("mail", "451 4.3.0 try again later", T, "server_error", Backoff.SHORT),
    ("mail", "421 4.4.2 idle timeout", T, "server_unavailable", Backoff.SHORT),
    ("mail", "450 4.7.1 sending rate exceeded", T, "rate_limited", Backoff.LONG),
    ("mail", "555 5.5.4 unsupported parameter", P, "sender_refused", Backoff.NEVER),
    # RCPT
    ("rcpt", "550 5.1.1 <x@example.org>: user unknown", P, "no_such_user", Backoff.NEVER),
    ("rcpt", "550 No such user here", P, "no_such_user", Backoff.NEVER),
    ("rcpt", "550 mailbox unavailable", P, "mailbox_unavailable", Backoff.NEVER),
    ("rcpt", "550 5.2.1 mailbox disabled", P, "mailbox_disabled", Backoff.NEVER),
    ("rcpt", "552 5.2.2 mailbox full", P, "mailbox_full", Backoff.NEVER),
    ("rcpt", "452 4.2.2 over quota", T, "mailbox_full", Backoff.LONG),
    ("rcpt", "450 4.2.0 <x@example.org>: Recipient address rejected: Greylisted", T, "greylisted", Backoff.SHORT),
    ("rcpt", "451 4.7.1 Greylisting in action, please come back later", T, "greylisted", Backoff.SHORT),
    ("rcpt", "450 mailbox busy", T, "mailbox_busy", Backoff.SHORT),
    ("rcpt", "452 4.5.3 too many recipients", T, "too_many_recipients", Backoff.SHORT),
    ("rcpt", "552 5.5.3 too many recipients", T, "too_many_recipients", Backoff.SHORT),
    ("rcpt", "553 5.1.3 bad address syntax", P, "bad_address", Backoff.NEVER),
    ("rcpt", "550 5.1.2 domain not found", P, "bad_domain", Backoff.NEVER),
    ("rcpt", "554 5.7.1 Relay access denied", P, "relay_denied", Backoff.NEVER),
    ("rcpt", "550 5.7.1 unable to relay", P, "relay_denied", Backoff.NEVER),
    ("rcpt", "554 5.7.1 client host blocked using zen.spamhaus.org", P, "host_blocked", Backoff.NEVER),
    ("rcpt", "554 no", P, "policy_refused", Backoff.NEVER),
    ("rcpt", "553 5.6.7 SMTPUTF8 required", P, "eai_unsupported", Backoff.NEVER),
    # DATA and the dot
    ("data", "554 5.5.1 no valid recipients", P, "content_rejected", Backoff.NEVER),
    ("data", "451 4.3.0 local error", T, "server_error", Backoff.SHORT),
    ("body", "552 5.2.3 message too large", P, "message_too_large", Backoff.NEVER),
    ("dot", "554 5.7.1 message contains a virus", P, "content_rejected", Backoff.NEVER),
    ("dot", "550 5.7.26 DMARC policy", P, "authentication_policy", Backoff.NEVER),
    ("dot", "554 transaction failed", P, "content_rejected", Backoff.NEVER),
    ("dot", "552 exceeded storage allocation", P, "message_too_large", Backoff.NEVER),
    ("dot", "452 4.3.1 disk full", T, "storage_full", Backoff.NORMAL),
    ("dot", "451 4.7.1 try later", T, "policy_deferred", Backoff.SHORT),
    ("dot", "421 4.3.2 shutting down", T, "server_unavailable", Backoff.SHORT),
    ("dot", "432 4.9.9 something new", T, "deferred", Backoff.NORMAL),
    ("dot", "599 5.9.9 something new", P, "content_rejected", Backoff.NEVER),
    # what is not a refusal
    ("mail", "354 go on", T, "protocol_error", Backoff.NORMAL),
    ("dot", "354 go on", A, "protocol_error", Backoff.NEVER),
    ("dot", "199 hm", A, "protocol_error", Backoff.NEVER),
]


@pytest.mark.parametrize(
    ("phase", "said", "kind", "reason", "backoff"), TABLE, ids=[f"{row[0]} {row[1]}" for row in TABLE]
)
def test_each_refusal_has_its_meaning(phase: str, said: str, kind: Kind, reason: str, backoff: Backoff) -> None:
    code, text = int(said[:3]), said[4:]
    verdict = classify(Phase(phase), code, enhanced_code(code, text), text)
    assert (verdict.kind, verdict.reason, verdict.backoff) == (kind, reason, backoff)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_code_has_a_meaning_in_every_phase(phase: Phase) -> None:
    for code in range(100, 600):
        verdict = classify(phase, code, None, "")
        assert verdict.reason
        assert (verdict.kind is Kind.AMBIGUOUS) == (phase is Phase.DOT and code < 400)
        assert (verdict.backoff is Backoff.NEVER) == (verdict.kind is not Kind.TEMPORARY)


def test_a_refusal_carries_the_servers_own_words() -> None:
    error = refusal(Phase.RCPT, ServerReply(550, "5.1.1 no such user\nask the postmaster"), "mail.example.org")
    assert error.detail() == {
        "phase": "rcpt",
        "code": 550,
        "enhanced": "5.1.1",
        "text": "5.1.1 no such user\nask the postmaster",
        "kind": "permanent",
        "reason": "no_such_user",
        "host": "mail.example.org",
        "retry_after": None,
    }
    assert str(error) == "permanent at rcpt (no_such_user): 550 5.1.1 no such user\nask the postmaster"


def test_every_reason_is_explained_in_the_documents() -> None:
    source = "".join(path.read_text() for path in Path(smtp.__file__).parent.glob("*.py"))
    named = set(re.findall(r'reason="(\w+)"|_unavailable\(\s*"(\w+)"|_unfit\("(\w+)"|Phase\.\w+, "(\w+)", ', source))
    reasons = {word for words in named for word in words if word} | {reason for _, reason, _ in _RULES}
    page = (ROOT / "docs" / "smtp.md").read_text()
    assert {"greylisted", "breaker_open", "invalid_address", "starttls_missing", "eai_unsupported"} <= reasons
    assert sorted(reason for reason in reasons if f"`{reason}`" not in page) == []
