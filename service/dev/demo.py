"""The demo tenant and its two keys, the same in every run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg

from service.access.secrets import digest
from service.console.sessions import PASS_LASTS, Session, seal
from service.db.tenancy import WORKER
from service.dev.postgres import write_private
from service.dev.schema import plain
from service.settings import Settings

TENANT = "demo"
SCOPES = ["*", "operator", "admin"]
GOOD = "SELECT count(*) FROM api_keys WHERE hash = ANY($1) AND revoked_at IS NULL AND scopes @> $2"
OWNER = "SELECT id, tenant_id FROM api_keys WHERE hash = $1"


@dataclass(frozen=True, slots=True)
class Keys:
    """``live`` really sends, ``test`` never leaves this machine."""

    live: str
    test: str


async def demo_keys(file: Path, url: str) -> Keys:
    """The keys in ``file`` when the database knows them, else new ones, kept there for their owner's eyes only."""
    keys = read(file)
    if keys is None or not await known(keys, url):
        keys = await make(url)
        write_private(file, json.dumps(asdict(keys)))
    return keys


def read(file: Path) -> Keys | None:
    try:
        return Keys(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


async def known(keys: Keys, url: str) -> bool:
    connection = await connect(url)
    try:
        return bool(await connection.fetchval(GOOD, [digest(keys.live), digest(keys.test)], SCOPES) == 2)
    finally:
        await connection.close()


async def connect(url: str, timeout: float = 10) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection that sees every tenant's rows, as a worker does; the database's owner sees none."""
    return await asyncpg.connect(plain(url), timeout=timeout, server_settings={"role": WORKER})


async def make(url: str) -> Keys:
    from service.access.keys import create  # noqa: PLC0415
    from service.db import engine as db  # noqa: PLC0415 - a second only the first run pays

    engine = db.create_engine(Settings.from_env({"DATABASE_URL": url}))
    try:
        async with db.transaction(db.sessions(engine)) as session:
            _, live = await create(session, TENANT, SCOPES, name="demo")
            _, test = await create(session, TENANT, SCOPES, name="demo", mode="test")
    finally:
        await engine.dispose()
    return Keys(live, test)


async def console_pass(keys: Keys, url: str, secret: str) -> str:
    """What signs a browser of this machine in to the console as the live key, for a week."""
    connection = await connect(url)
    try:
        row = await connection.fetchrow(OWNER, digest(keys.live))
    finally:
        await connection.close()
    return seal(secret, Session.begin(row["id"], row["tenant_id"], PASS_LASTS), "pass") if row else ""
