"""A conversation with any OpenAI-compatible chat endpoint: one request, one text, every failure in our words.

Bound to the loop it is made on. The shape of the requests: platform.openai.com/docs/api-reference/chat.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from callboard_workers.errors import Dead, Retry
from service.settings import Settings

CONNECT = 5.0  # seconds
LARGEST = 1024 * 1024  # bytes of an answer
LONGEST_WAIT = 3600.0  # seconds of a Retry-After that are believed
TOO_EARLY = frozenset({408, 409, 425, 429})

Turn = Mapping[str, str]


class Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class Choice(msgspec.Struct):
    message: Said
    finish_reason: str | None = None


class Completion(msgspec.Struct):
    """What we read of a chat completion."""

    choices: list[Choice]


class Chat:
    """One endpoint and one model."""

    def __init__(self, base_url: str, api_key: str, model: str, timeout: float) -> None:
        """`timeout`: seconds for one whole answer."""
        self.model = model
        self._timeout = timeout
        self._shaped = True
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(CONNECT, timeout)),
            follow_redirects=False,
            trust_env=False,
        )

    @classmethod
    def of(cls, settings: Settings) -> "Chat | None":
        """Make the chat that the settings describe; None where they name no endpoint."""
        if not settings.llm_base_url:
            return None
        return cls(settings.llm_base_url, settings.llm_api_key, settings.llm_model, settings.llm_timeout)

    async def ask(self, turns: Sequence[Turn], name: str, schema: Mapping[str, Any]) -> str:
        """Ask for JSON of `schema` and return the model's text, which may still be anything.

        Raises Retry where the endpoint may answer later (429, 5xx, silence, nonsense; its Retry-After is honoured),
        Dead where it will not.
        """
        body: dict[str, Any] = {"model": self.model, "messages": list(turns)}
        if self._shaped:
            shape = {"name": name, "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        status, headers, answer = await self._post(body)
        if self._shaped and status in {400, 422} and b"response_format" in answer:
            self._shaped = False  # this endpoint cannot be told the shape; the prompt tells it too
            return await self.ask(turns, name, schema)
        if status != 200:
            raise refusal(status, headers)
        return text_of(answer)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _post(self, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", "chat/completions", json=body) as response,
            ):
                return response.status_code, response.headers, await _read(response)
        except (TimeoutError, httpx.TimeoutException) as error:
            reason = f"the model did not answer within {self._timeout:g} s"
            raise Retry(None, reason, {"reason": "llm_timeout"}) from error
        except httpx.TransportError as error:
            reason = f"the model cannot be reached: {type(error).__name__}"
            raise Retry(None, reason, {"reason": "llm_unreachable"}) from error


async def _read(response: httpx.Response) -> bytes:
    parts = bytearray()
    async for part in response.aiter_bytes():
        parts += part
        if len(parts) > LARGEST:
            raise Retry(None, f"the model's answer is over {LARGEST} bytes", {"reason": "llm_malformed"})
    return bytes(parts)


def refusal(status: int, headers: Mapping[str, str]) -> Retry | Dead:
    """Make what a status other than 200 means for the job: to be tried again, or over."""
    if status in TOO_EARLY or status >= 500:
        word = "llm_rate_limited" if status == 429 else "llm_unavailable"
        delay = retry_after(headers.get("retry-after", ""), datetime.now(UTC))
        return Retry(delay, f"the model's endpoint answered {status}", {"reason": word, "status": status})
    hint = {
        401: ": see LLM_API_KEY",
        403: ": see LLM_API_KEY",
        404: ": see LLM_BASE_URL and LLM_MODEL",
    }.get(status, "")
    return Dead(f"the model's endpoint answered {status}{hint}", {"reason": "llm_refused", "status": status})


def retry_after(value: str, now: datetime) -> float | None:
    """Read Retry-After, seconds or an HTTP date (RFC 9110, 10.2.3), as seconds from `now`; None without one."""
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return min(float(value), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), LONGEST_WAIT)


def text_of(answer: bytes) -> str:
    """Read the model's text out of a chat completion. Raises Retry for anything else, Dead where the model declines."""
    try:
        completion = msgspec.json.decode(answer, type=Completion)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Retry(None, "the endpoint's answer is no chat completion", {"reason": "llm_malformed"}) from error
    choice = completion.choices[0] if completion.choices else None
    if choice is not None and (choice.message.refusal or choice.finish_reason == "content_filter"):
        raise Dead("the model declines to answer this", {"reason": "llm_declined"})
    if choice is None or not choice.message.content:
        raise Retry(None, "the model's answer is empty", {"reason": "llm_malformed"})
    return choice.message.content
