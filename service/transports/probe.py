"""Tries a tenant's mail server and says how to mend it in the words of the API."""

import re
from uuid import UUID

from service.smtp import Step
from service.transports.pools import Relays
from service.transports.schemas import ProbeOut, StepOut

_SETTING = re.compile(r"\bSMTP_([A-Z_]+)\b")


async def probe(relays: Relays, id: UUID, sender: str) -> ProbeOut:
    """Walk to a tenant's mail server. Raises CannotOpen where its password cannot be read."""
    transport = await relays.find(id)
    steps = [] if transport is None else await transport.probe(sender)
    return ProbeOut(ok=bool(steps) and all(step.ok for step in steps), steps=list(map(_told, steps)))


def _told(step: Step) -> StepOut:
    mend = _SETTING.sub(lambda found: found[1].lower(), step.mend)
    return StepOut(name=step.name, ok=step.ok, seconds=round(step.seconds, 4), detail=step.detail, mend=mend)
