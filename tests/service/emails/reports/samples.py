"""Reports as mail servers write them, about a mail of ours."""

DSN = """\
Return-Path: <>
Received: from mx.example.org by relay.academy.example; {received}
Date: Mon, 12 Jan 2026 08:31:00 +0000
From: MAILER-DAEMON@mx.example.org (Mail Delivery System)
To: {to}
Message-ID: <20260112083100.4XyZ@mx.example.org>
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="4XyZ.1768206660/mx.example.org"

This is a MIME-encapsulated message.

--4XyZ.1768206660/mx.example.org
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

This is the mail system at host mx.example.org.
I'm sorry to have to inform you that your message could not be delivered.

--4XyZ.1768206660/mx.example.org
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
{envelope}X-Postfix-Queue-ID: 4XyZ
Arrival-Date: Mon, 12 Jan 2026 08:30:59 +0000

Final-Recipient: rfc822; {recipient}
Original-Recipient: rfc822;{original}
Action: {action}
Status: {status}
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; {code} {status} <{recipient}>: the server's words

--4XyZ.1768206660/mx.example.org
Content-Description: Undelivered Message Headers
Content-Type: text/rfc822-headers

Return-Path: <hello@academy.example>
From: Academy <hello@academy.example>
To: {recipient}
{quoted}Subject: Hello

--4XyZ.1768206660/mx.example.org--
"""

ARF = """\
Date: Mon, 12 Jan 2026 10:00:00 +0000
From: <abusedesk@example.com>
Subject: FW: Earn money
To: <abuse@academy.example>
Message-ID: <arf-1@example.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="part1_13d.2e68ed54_boundary"

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset="US-ASCII"
Content-Transfer-Encoding: 7bit

This is an email abuse report for an email message received from IP 192.0.2.1.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <{sender}>
{rcpt}Arrival-Date: Mon, 12 Jan 2026 09:00:00 +0000

--part1_13d.2e68ed54_boundary
Content-Type: message/rfc822
Content-Disposition: inline

From: <hello@academy.example>
To: <undisclosed>
Subject: Hello
Message-ID: {message_id}
MIME-Version: 1.0
Content-type: text/plain

Spam Spam Spam
--part1_13d.2e68ed54_boundary--
"""

QMAIL = """\
From: MAILER-DAEMON@old.example.org
To: {to}
Subject: failure notice
Date: 12 Jan 2026 08:31:00 -0000
Message-ID: <qmail-1@old.example.org>

Hi. This is the qmail-send program at old.example.org.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<{recipient}>:
192.0.2.7 does not like recipient.
Remote host said: 550 unknown user
Giving up on 192.0.2.7.

--- Below this line is a copy of the message.

Return-Path: <hello@academy.example>
Message-ID: {message_id}
From: Academy <hello@academy.example>
Subject: Hello

Good morning.
"""


def dsn(
    message_id: str = "",
    *,
    recipient: str = "ada@example.org",
    action: str = "failed",
    status: str = "5.1.1",
    envelope: str = "",
    to: str = "hello@academy.example",
    original: str = "",
    received: str = "Mon, 12 Jan 2026 08:31:00 +0000",
) -> bytes:
    """A delivery status notification (RFC 3464) as Postfix writes it; the mail is named in whatever ways are given."""
    return _lines(
        DSN.format(
            recipient=recipient,
            original=original or recipient,
            action=action,
            status=status,
            code={"5": "550", "4": "452", "2": "250"}[status[0]],
            envelope=f"Original-Envelope-Id: {envelope}\n" if envelope else "",
            quoted=f"Message-ID: {message_id}\n" if message_id else "",
            to=to,
            received=received,
        )
    )


def arf(message_id: str, *, recipient: str = "", kind: str = "abuse", sender: str = "hello@academy.example") -> bytes:
    """An abuse report (RFC 5965); many feedback loops hide the recipient."""
    rcpt = f"Original-Rcpt-To: <{recipient}>\n" if recipient else ""
    return _lines(ARF.format(message_id=message_id, rcpt=rcpt, kind=kind, sender=sender))


def qmail(message_id: str, *, recipient: str = "ada@example.org", to: str = "hello@academy.example") -> bytes:
    """A bounce that keeps to no standard."""
    return _lines(QMAIL.format(message_id=message_id, recipient=recipient, to=to))


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()
