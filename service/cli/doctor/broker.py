"""Looks at Redis: does it answer, will it keep the messages it is given."""

from typing import Any
from urllib.parse import urlsplit

from callboard_workers.redis import address
from service.cli.doctor.finding import Finding, Mark, Section, judge, look
from service.settings import Settings

OLDEST = (6, 2)  # BLMOVE


async def examine(settings: Settings) -> Section:
    """Look at the Redis of REDIS_URL."""
    findings: list[Finding] = []
    client = address.async_client(settings.redis_url, socket_timeout=5, socket_connect_timeout=5)
    info: dict[str, Any] = {}

    async def ping() -> str:
        await client.ping()
        return _where(settings.redis_url)

    async def about() -> str:
        info.update(await client.info())
        return f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info.get('redis_version')}"

    async def write() -> str:
        key = f"{settings.redis_key_prefix}callboard:doctor"
        await client.set(key, "well", ex=10)
        await client.delete(key)
        return "takes writes"

    try:
        mend = "Check that Redis runs and that REDIS_URL names its host, port and password."
        if await look(findings, "ping", mend, ping) and await look(findings, "version", "Allow INFO.", about):
            findings += _server(info)
            await look(
                findings, "write", "Free memory or disk, or allow SET and DEL: messages cannot be queued.", write
            )
    finally:
        await client.aclose()
    return Section(name="Redis", findings=findings)


def _where(text: str) -> str:
    if address.is_sentinel(text):
        return f"the master {address.Sentinels.of(text).master}, as the sentinels know it"
    url = urlsplit(text)
    return f"{url.hostname or url.path} port {url.port or 6379}"


def _server(info: dict[str, Any]) -> list[Finding]:
    version = tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])
    policy = str(info.get("maxmemory_policy", "unknown"))
    kept = bool(info.get("aof_enabled"))
    return [
        judge(
            "role",
            str(info.get("role", "unknown")),
            "Point REDIS_URL at the primary.",
            good=info.get("role") == "master",
        ),
        judge(
            "commands",
            f"compatible with Redis {'.'.join(map(str, version))}",
            "Use Redis 6.2, Valkey 7.2 or newer.",
            good=version >= OLDEST,
        ),
        judge(
            "maxmemory-policy",
            policy,
            "CONFIG SET maxmemory-policy noeviction: a queue must not be evicted.",
            good=policy == "noeviction",
        ),
        judge(
            "appendonly",
            "yes" if kept else "no",
            "CONFIG SET appendonly yes: messages sent without a row are lost when Redis restarts (mail is not: it has"
            " rows).",
            good=kept,
            otherwise=Mark.DOUBTFUL,
        ),
    ]
