"""Where Redis is: one server, or the master that sentinels know by its name.

redis://[user:password@]host:port/db       rediss:// over TLS (?ssl_cert_reqs=required&ssl_ca_certs=…), unix:// a socket
sentinel://[user:password@]host:port;host:port;…/db?master_name=NAME[&sentinel_username=…&sentinel_password=…&ssl=true]

redis-py is imported where a connection is made: declaring actors does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from redis.asyncio.connection import ConnectionPool

SENTINEL = "sentinel://"
SENTINEL_PORT = 26_379


@dataclass(frozen=True)
class Sentinels:
    """Who knows the master, and how to speak to them and to it."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    db: int = 0
    server: dict[str, Any] = field(default_factory=dict)
    """`username`, `password`, `ssl` for the master."""
    own: dict[str, Any] = field(default_factory=dict)
    """`username`, `password` for the sentinels themselves."""

    @classmethod
    def of(cls, url: str) -> Sentinels:
        """Read a sentinel:// URL; ValueError says what it lacks."""
        parts = [urlsplit(SENTINEL + part.strip().removeprefix(SENTINEL)) for part in url.split(";") if part.strip()]
        query = dict(pair for part in parts for pair in parse_qsl(part.query))
        if not query.get("master_name"):
            raise ValueError("a sentinel:// URL must name its master, as in …/0?master_name=mymaster")
        hosts = tuple((part.hostname, part.port or SENTINEL_PORT) for part in parts if part.hostname)
        if not hosts:
            raise ValueError("a sentinel:// URL must name a sentinel: sentinel://host:26379/0?master_name=…")
        path = next((part.path.strip("/") for part in parts if part.path.strip("/")), "0")
        if not path.isdigit():
            raise ValueError(f"a sentinel:// URL ends in the number of a database, not in {path!r}")
        user = next(((part.username, part.password) for part in parts if part.password), (None, None))
        server = {"username": user[0], "password": user[1]}
        own = {name: query.get(f"sentinel_{name}") for name in ("username", "password")}
        return cls(
            hosts,
            query["master_name"],
            int(path),
            {name: unquote(value) for name, value in server.items() if value}
            | ({"ssl": True} if query.get("ssl", "").lower() in ("true", "1") else {}),
            {name: value for name, value in own.items() if value},
        )

    @property
    def celery_url(self) -> str:
        """As Celery writes it; `celery_options` go beside it."""
        secret = ""
        if "password" in self.server:
            secret = f"{self.server.get('username', '')}:{self.server['password']}@"
        return ";".join(f"{SENTINEL}{secret}{host}:{port}/{self.db}" for host, port in self.hosts)

    @property
    def celery_options(self) -> dict[str, Any]:
        """The transport options of `kombu.transport.redis.SentinelChannel`."""
        return {"master_name": self.master, "sentinel_kwargs": {**self.own, "socket_timeout": 2.0}}


def is_sentinel(url: str) -> bool:
    """Whether a URL names sentinels."""
    return url.startswith(SENTINEL)


def pool(url: str, **options: Any) -> ConnectionPool:
    """Where an event loop gets its connections from; each new one of sentinels' asks them for the master."""
    from redis.asyncio import sentinel  # noqa: PLC0415
    from redis.asyncio.connection import ConnectionPool  # noqa: PLC0415

    if not is_sentinel(url):
        return ConnectionPool.from_url(url, **options)

    found = Sentinels.of(url)
    bounded = {"socket_timeout": 2.0, "socket_connect_timeout": options.get("socket_connect_timeout", 2.0)}
    manager = sentinel.Sentinel(found.hosts, sentinel_kwargs={**found.own, **bounded})  # type: ignore[no-untyped-call]
    return sentinel.SentinelConnectionPool(  # type: ignore[no-untyped-call]
        found.master, manager, db=found.db, **found.server, **options
    )


async def rest(pool: ConnectionPool) -> None:
    """Close the connections to the sentinels: they are asked again when the master is lost."""
    manager = getattr(pool, "sentinel_manager", None)
    for client in manager.sentinels if manager is not None else ():
        await client.connection_pool.disconnect()


def client(url: str, **options: Any) -> Redis:
    """A client that blocks, for the threads of a worker beside its loop."""
    from redis import Redis, sentinel  # noqa: PLC0415

    if not is_sentinel(url):
        return Redis.from_url(url, **options)

    found = Sentinels.of(url)
    bounded = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout") if name in options}
    manager = sentinel.Sentinel(found.hosts, sentinel_kwargs={**found.own, **bounded})  # type: ignore[no-untyped-call]
    made: Redis = manager.master_for(found.master, db=found.db, **found.server, **options)  # type: ignore[no-untyped-call]
    return made


def async_client(url: str, **options: Any) -> AsyncRedis:
    """A client on the running loop; `aclose()` closes its connections."""
    from redis.asyncio import Redis as AsyncRedis  # noqa: PLC0415

    return AsyncRedis.from_pool(pool(url, **options))


def database(url: str) -> int:
    """The number of the database."""
    from redis.connection import parse_url  # noqa: PLC0415

    return Sentinels.of(url).db if is_sentinel(url) else int(parse_url(url).get("db") or 0)  # type: ignore[no-untyped-call]
