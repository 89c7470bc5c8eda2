"""Walks the way to a mail server and says where it ends."""

import asyncio

from service.emails.smtp.dial import Dialer
from service.emails.smtp.errors import SmtpError
from service.emails.smtp.steps import Step, mend


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
