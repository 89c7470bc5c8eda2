"""Walks the way to a mail server and says where it ends."""

import asyncio

from service.smtp.connect import Dialer
from service.smtp.errors import SmtpError
from service.smtp.phases import Timeouts
from service.smtp.probe_steps import Step, mend

# Nobody sits before a terminal for the five minutes that RFC 5321 grants a banner.
IMPATIENT = Timeouts(
    connect=5, banner=10, ehlo=10, starttls=10, auth=10, rset=5, mail=10, rcpt=20, data=10, body=10, dot=60, total=60
)


async def probe(dialer: Dialer, sender: str) -> list[Step]:
    """Take every step up to MAIL and RSET; the first that fails is the last one returned. Sends no mail."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + dialer.timeouts.total
    steps: list[Step] = []
    try:
        connection = await dialer.dial(deadline, steps.append)
    except SmtpError:
        return steps
    started = loop.time()
    try:
        reply = await connection.try_sender(sender, deadline)
        steps.append(Step("mail", True, loop.time() - started, reply.text))
    except SmtpError as error:
        steps.append(Step("mail", False, loop.time() - started, f"{error.reason}: {error.text}", mend(error)))
    await connection.quit()
    return steps
