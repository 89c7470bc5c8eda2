"""Fills the service's own queue with mails: `python -m bench.letters fill mail 500` (see peers/kit.py)."""

from __future__ import annotations

from uuid import UUID

from bench.peers import kit
from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime
from service.access import keys
from service.db import engine
from service.emails import in_process
from service.emails.schemas import EmailRequest
from service.settings import Settings

TEXT = ("x" * 70 + "\n") * 14
LETTER = EmailRequest(to="to@bench.example.org", subject="bench", text=TEXT)
CHUNK = 50


async def start() -> None:
    """Open the runtime that the accept path has."""
    settings = Settings.from_env()
    runtime = Runtime(engine.create_engine(settings), Publisher(settings.redis_url))
    runtime.state["settings"] = settings
    await runtime.start()


async def stop() -> None:
    """Close it."""
    runtime = Runtime.of_loop()
    await runtime.stop()
    assert runtime.engine is not None
    await runtime.engine.dispose()


async def send_many(_name: str, count: int) -> None:
    """Store mails and ring for them."""
    runtime = Runtime.of_loop()
    assert runtime.engine is not None
    maker = engine.sessions(runtime.engine)
    async with engine.transaction(maker) as session:
        key, _ = await keys.create(session, "bench", ["*"])
        tenant: UUID = key.tenant_id
    for start in range(0, count, CHUNK):
        async with engine.transaction(maker) as session:
            for _ in range(min(CHUNK, count - start)):
                await in_process.enqueue(
                    session, EmailRequest(to="to@bench.example.org", subject="bench", text=TEXT), tenant_id=tenant
                )


async def send(_name: str) -> None:
    """One mail."""
    await send_many(_name, 1)


if __name__ == "__main__":
    kit.main(kit.Client(send, open=start, close=stop, send_many=send_many))
