"""What a server's refusal means: pure, one table of rules, first match wins.

Sources: RFC 5321 section 4.2, RFC 3463 (enhanced codes), RFC 4954 (AUTH), RFC 3207 (STARTTLS), RFC 6531 (SMTPUTF8).
"""

import re
from collections.abc import Callable, Mapping

import msgspec

from service.smtp.errors import Backoff, Kind, SmtpError
from service.smtp.phases import Phase
from service.smtp.reply import ServerReply


class Verdict(msgspec.Struct, frozen=True):
    """What one refusal means: is it final, what to call it, how long to leave it alone."""

    kind: Kind
    reason: str
    backoff: Backoff


class _Case(msgspec.Struct, frozen=True):
    phase: Phase
    code: int
    enhanced: str
    text: str

    @property
    def topic(self) -> str:
        """The enhanced code without its class: 5.1.1 and 4.1.1 are both about 1.1."""
        return self.enhanced[2:]


_Test = Callable[[_Case], bool]


def _code(*codes: int) -> _Test:
    return lambda case: case.code in codes


def _topic(*topics: str) -> _Test:
    return lambda case: case.topic in topics


def _says(pattern: str) -> _Test:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda case: found.search(case.text) is not None


def _at(*phases: Phase) -> _Test:
    return lambda case: case.phase in phases


def _all(*tests: _Test) -> _Test:
    return lambda case: all(test(case) for test in tests)


def _any(*tests: _Test) -> _Test:
    return lambda case: any(test(case) for test in tests)


def _soft(case: _Case) -> bool:
    return case.code < 500


def _hard(case: _Case) -> bool:
    return case.code >= 500


_SHORT, _NORMAL, _LONG, _OPERATOR = Backoff.SHORT, Backoff.NORMAL, Backoff.LONG, Backoff.OPERATOR
# Words that servers use; what an enhanced code says is asked first where there is one for it.
_CONNECTIONS = _says(r"too many (concurrent )?(smtp )?(connections|sessions)|connection (limit|rate)|concurrent conn")
_TLS = _says(r"starttls|encrypt")
_AUTHENTICATE = _says(r"authentication (is )?required")
_SMTPUTF8 = _says(r"smtputf8")
_RECIPIENTS = _says(r"too many recipients")
_GREYLIST = _says(r"gr[ea]y-?list")
_SIZE = _says(r"(message|mail)( is|'s)? (too (large|big)|size)|(size|maximum).{0,20}exceed|exceeds.{0,20}size")
_QUOTA = _says(r"over ?quota|quota exceeded|(mail)?box (is )?full")
_DISABLED = _says(r"(account|mailbox|user).{0,20}(disabled|inactive)")
_RATE = _says(r"rate.?limit|throttl|too (many|fast).{0,20}(messages|mails|rate)|sending rate|daily.{0,20}(limit|quota)")
_SPF = _says(r"\b(spf|dkim|dmarc)\b")
_RELAY = _says(r"relay(ing)?.{0,30}(denied|not permitted|prohibited)|(unable|not allowed) to relay")
_BLOCKLIST = _says(r"\b(spamhaus|blacklist|block ?list|blocklisted|rbl|dnsbl)\b")
_CONTENT = _says(r"\b(spam|virus|malware|phish)")
_DOMAIN = _says(r"(domain|host) not found|no mx")
_NOBODY = _says(
    r"(user|recipient|mailbox|account).{0,20}(unknown|not found|does(n.t| not) exist)"
    r"|(unknown|no such) (user|recipient|mailbox)"
)

# (test, reason, back-off while temporary). Whether a refusal is final is decided apart, in `_kind`.
_RULES: tuple[tuple[_Test, str, Backoff], ...] = (
    (_all(_any(_code(421), _at(Phase.CONNECT, Phase.BANNER)), _CONNECTIONS), "too_many_connections", _SHORT),
    (_all(_at(Phase.AUTH), _soft), "auth_unavailable", _NORMAL),
    (_at(Phase.AUTH), "auth_failed", _OPERATOR),
    (_any(_code(523), _topic("7.10"), _all(_code(530, 538, 554), _TLS)), "tls_required", _OPERATOR),
    (_any(_code(535), _topic("7.8")), "auth_failed", _OPERATOR),
    (_any(_code(530, 534), _AUTHENTICATE), "auth_required", _OPERATOR),
    (_at(Phase.STARTTLS), "starttls_refused", _OPERATOR),
    (_any(_topic("6.7", "6.8", "6.9"), _SMTPUTF8), "eai_unsupported", _NORMAL),
    (_any(_topic("5.3"), _RECIPIENTS), "too_many_recipients", _SHORT),
    (_GREYLIST, "greylisted", _SHORT),
    (_any(_topic("3.4", "2.3"), _SIZE), "message_too_large", _LONG),
    (_any(_topic("2.2"), _QUOTA), "mailbox_full", _LONG),
    (_any(_topic("2.1"), _DISABLED), "mailbox_disabled", _LONG),
    (_RATE, "rate_limited", _LONG),
    (_any(_topic("7.20", "7.21", "7.22", "7.23", "7.25", "7.26", "7.27"), _SPF), "authentication_policy", _LONG),
    (_RELAY, "relay_denied", _OPERATOR),
    (_BLOCKLIST, "host_blocked", _LONG),
    (_CONTENT, "content_rejected", _LONG),
    (_all(_at(Phase.MAIL), _any(_topic("1.7", "1.8", "7.1"), _hard)), "sender_refused", _LONG),
    (_any(_topic("1.2", "4.4"), _DOMAIN), "bad_domain", _LONG),
    (_any(_topic("1.1", "1.6", "1.10"), _NOBODY), "no_such_user", _LONG),
    (_any(_topic("1.3"), _all(_at(Phase.RCPT), _code(501, 553))), "bad_address", _LONG),
    (_any(_topic("3.1"), _code(452)), "storage_full", _NORMAL),
    (_code(421), "server_unavailable", _SHORT),
    (_all(_topic("7.0", "7.1"), _soft), "policy_deferred", _SHORT),
    (_any(_topic("7.1"), _all(_at(Phase.RCPT), _code(554))), "policy_refused", _LONG),
    (_all(_at(Phase.RCPT), _code(450)), "mailbox_busy", _SHORT),
    (_all(_at(Phase.RCPT), _code(550, 551, 556)), "mailbox_unavailable", _LONG),
    (_code(552), "message_too_large", _LONG),
    (_all(_at(Phase.DATA, Phase.BODY, Phase.DOT), _hard), "content_rejected", _LONG),
    (_code(500, 501, 502, 503, 504, 555), "protocol_refused", _OPERATOR),
    (_code(451), "server_error", _SHORT),
    (_soft, "deferred", _NORMAL),
    (_hard, "refused", _NORMAL),
)

# Refusals by a 5yz that a person here must mend: the mail waits for it rather than dying of a wrong setting.
_MENDABLE = frozenset({"auth_failed", "auth_required", "tls_required"})


def _kind(case: _Case, reason: str) -> Kind:
    if case.code < 500 or case.phase.about_us or reason in _MENDABLE:
        return Kind.TEMPORARY
    if reason == "too_many_recipients" and case.code == 552:
        return Kind.TEMPORARY  # RFC 5321, section 4.5.3.1.10: a 552 to RCPT is to be read as 452
    return Kind.PERMANENT


def classify(phase: Phase, code: int, enhanced: str | None, text: str) -> Verdict:
    """Say what a refusal (a 4yz or a 5yz reply) means.

    Before MAIL every refusal is temporary: it is about this client, its settings or the server's state, and no mail
    may die of that. Anything that is not a refusal (1yz, 2yz, 3yz where it does not belong) is `protocol_error`:
    temporary before the final dot, ambiguous after it.
    """
    if not 400 <= code <= 599:
        if phase is Phase.DOT:
            return Verdict(Kind.AMBIGUOUS, "protocol_error", Backoff.NEVER)
        return Verdict(Kind.TEMPORARY, "protocol_error", Backoff.NORMAL)
    case = _Case(phase, code, enhanced or "", text)
    reason, backoff = next((reason, backoff) for test, reason, backoff in _RULES if test(case))
    kind = _kind(case, reason)
    return Verdict(kind, reason, backoff if kind is Kind.TEMPORARY else Backoff.NEVER)


def refusal(phase: Phase, reply: ServerReply, host: str, refused: Mapping[str, ServerReply] | None = None) -> SmtpError:
    """Return the error that a server's reply amounts to."""
    verdict = classify(phase, reply.code, reply.enhanced, reply.text)
    return SmtpError(
        phase,
        reply.code,
        reply.text,
        verdict.kind,
        enhanced=reply.enhanced,
        reason=verdict.reason,
        backoff=verdict.backoff,
        host=host,
        refused=refused,
    )
