"""Sending mail over SMTP, with a fence before the point of no return.

    transport = Transport("smtp.example.org", 587, username="…", password="…", tls=Tls.STARTTLS)
    reply = await transport.send("from@example.org", ["to@example.org"], data, before_dot=fence)

`before_dot` is awaited when the whole mail but its final dot has been sent: if it raises, the mail is certainly not
accepted. After the dot, only a definite reply of the server is believed; anything else is `Kind.AMBIGUOUS`.
"""

from service.smtp.connection import BeforeDot
from service.smtp.errors import Backoff, Kind, SmtpError
from service.smtp.phases import Phase, Timeouts
from service.smtp.probe_steps import Step
from service.smtp.reply import Reply, ServerReply
from service.smtp.tls import Tls
from service.smtp.transport import Transport

__all__ = [
    "Backoff",
    "BeforeDot",
    "Kind",
    "Phase",
    "Reply",
    "ServerReply",
    "SmtpError",
    "Step",
    "Timeouts",
    "Tls",
    "Transport",
]
