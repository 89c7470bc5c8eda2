"""Messages without a row: what a dead worker held reaches another, whatever Redis loses on the way."""

from pathlib import Path

import redis
from uuid_utils.compat import uuid7

from callboard_workers.message import Message
from callboard_workers.redis.keys import Keys
from callboard_workers.redis.protocol import encode
from callboard_workers.redis.scripts import TAKE
from service.dev.chaos.fleet import by_hand
from service.dev.chaos.proxy import Proxy
from service.dev.stack import Stack
from tests.faults.judging import eventually
from tests.wire.process import Worker


async def test_what_a_dead_worker_held_runs_though_the_answer_to_its_heir_was_lost(
    stack: Stack, redis_url: str, tmp_path: Path
) -> None:
    """A message without a row, taken over from a dead worker: Redis has given it away, and nobody heard."""
    keys, tag = Keys(), "inherited"
    message = encode(Message(id=uuid7(), actor="demo.work", args=(tag, 0.0), queue="default"))
    async with Proxy("127.0.0.1", stack.valkey.port) as proxy:
        worker = Worker(redis_url.replace(str(stack.valkey.port), str(proxy.port)), tmp_path)
        try:
            await by_hand(worker.start)
            proxy.cut_at(TAKE.sha.encode(), passing=True)
            with redis.Redis.from_url(redis_url) as server:
                server.script_load(TAKE.text)
                server.hset(keys.unacked("ghost"), "1", b"default\n" + message)
                server.zadd(keys.owners, {"ghost": 1})
                await eventually(lambda: not server.exists(keys.unacked("ghost")), "the heir has taken it")
            proxy.heal()
            await eventually(lambda: worker.notes()[f"end {tag}"] == 1, "it runs")
        finally:
            worker.kill()
