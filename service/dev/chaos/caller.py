"""Hands in mails as the documentation tells a client to: with an Idempotency-Key, again until it hears 202."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import httpx

TOO_OFTEN = 90.0  # seconds of trying before a mail counts as one that was never accepted
CONNECTIONS = 50
REFUSALS = frozenset({409, 429, 503})


class Caller:
    """A client of the API for each of its `keys`, of one tenant each.

    `accepted`: the ids that each Idempotency-Key was answered with; `recipients`: the addresses it was asked for;
    `unexpected`: what must not be.
    """

    def __init__(self, url: str, *keys: str, timeout: float = 10.0) -> None:
        self.keys = keys
        self.client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {keys[0]}"},
            timeout=timeout,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        )
        # A queue inside httpx is walked through at every event: a thousand in it stop the loop, and with it every proxy
        # of the run, for many seconds; what reaches the API then is late, and looks like a fault of the API.
        self._room = asyncio.Semaphore(CONNECTIONS)
        self.accepted: dict[str, set[UUID]] = {}
        self.recipients: dict[str, tuple[str, ...]] = {}
        self.answers: Counter[str] = Counter()
        self.unexpected: list[str] = []

    async def send(
        self,
        key: str,
        *,
        to: Sequence[str] = (),
        tenant: int = 0,
        lane: str = "default",
        patience: float = TOO_OFTEN,
    ) -> None:
        """Hands in one email, for a tenant by its number, until it is accepted; `to`: one address of its own.

        Gives up, and says so in `unexpected`, after `patience` seconds.
        """
        self.recipients[key] = tuple(to) or (f"{key}@example.org",)
        body: dict[str, object] = {
            "to": list(to) or f"{key}@example.org",
            "subject": "Tides",
            "text": f"Mail {key}.\n",
            "lane": lane,
        }
        give_up = asyncio.get_running_loop().time() + patience
        while not await self.try_once(key, body, tenant):
            if asyncio.get_running_loop().time() > give_up:
                self.unexpected.append(f"{key} was not accepted within {patience:.0f} s: {dict(self.answers)}")
                return
            await asyncio.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - jitter

    async def try_once(self, key: str, body: dict[str, object], tenant: int = 0) -> bool:
        """One request; whether it was accepted."""
        headers = {"Idempotency-Key": key, "Authorization": f"Bearer {self.keys[tenant]}"}
        try:
            async with self._room:
                answer = await self.client.post("/v1/emails", json=body, headers=headers)
        except httpx.TransportError as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(answer.status_code)] += 1
        if answer.status_code == 202:
            self.accepted.setdefault(key, set()).add(UUID(answer.json()["id"].removeprefix("em_")))
            return True
        if answer.status_code not in REFUSALS or "retry-after" not in answer.headers:
            self.unexpected.append(f"{answer.status_code} for {key}: {answer.text[:300]}")
        return False

    @property
    def ids(self) -> list[UUID]:
        """Every id that was accepted so far, in order of acceptance."""
        return [id for ids in self.accepted.values() for id in ids]

    async def close(self) -> None:
        await self.client.aclose()
