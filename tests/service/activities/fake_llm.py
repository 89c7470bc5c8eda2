"""A chat-completions server of our own: asyncio streams, a script of answers and faults, a record of what was asked."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

ACTIVITY = {
    "title": "Two truths and a deploy",
    "description": "Each tells three things about the system, one of them wrong.",
    "duration_minutes": 30,
    "materials": [],
    "steps": ["Think of three.", "Tell them.", "The others guess."],
}
GOOD = {"activities": [{**ACTIVITY, "title": f"Activity {n}"} for n in (1, 2, 3)]}
SHORT = {"activities": [ACTIVITY]}

Writer = asyncio.StreamWriter
Step = Callable[[Writer], Awaitable[None]]


def say(content: Any, **more: Any) -> Step:
    """Answer with a chat completion whose text is `content`, JSON unless it is text already."""
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return reply(200, json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}))


def reply(status: int, body: str = "{}", **headers: str) -> Step:
    """Answer with a status, a body, and headers (underscores are hyphens)."""

    async def step(writer: Writer) -> None:
        data = body.encode()
        lines = [f"HTTP/1.1 {status} Said", "Content-Type: application/json", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()

    return step


async def silence(_: Writer) -> None:
    """Take the request and never answer."""
    await asyncio.sleep(3600)


async def hang_up(writer: Writer) -> None:
    """Close without an answer."""
    writer.close()


def after(event: asyncio.Event, step: Step) -> Step:
    """Answer once `event` is set."""

    async def wait(writer: Writer) -> None:
        await event.wait()
        await step(writer)

    return wait


class Model:
    """The server. `script`: a step for each request in turn; when it is over, `otherwise`. `asked`: the bodies."""

    def __init__(self, *script: Step, otherwise: Step | None = None) -> None:
        self.script = list(script)
        self.otherwise = otherwise or say(GOOD)
        self.asked: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Model":
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def until(self, count: int, seconds: float = 20.0) -> None:
        """Wait until so many requests came in."""
        async with asyncio.timeout(seconds):
            while len(self.asked) < count:  # noqa: ASYNC110 (the script need not tell)
                await asyncio.sleep(0.01)

    async def _talk(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._one(head.decode(), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, head: str, reader: asyncio.StreamReader, writer: Writer) -> None:
        lengths = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length")]
        self.heads.append(head)
        self.asked.append(json.loads(await reader.readexactly(int(lengths[0]))))
        step = self.script.pop(0) if self.script else self.otherwise
        await step(writer)
