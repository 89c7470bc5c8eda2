"""The demo tenant and its two keys, the same in every run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg

from service.access.secrets import digest
from service.dev.postgres import write_private
from service.dev.schema import plain
from service.settings import Settings

TENANT = "demo"
GOOD = "SELECT count(*) FROM api_keys WHERE hash = ANY($1) AND revoked_at IS NULL"


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
    connection = await asyncpg.connect(plain(url), timeout=10)
    try:
        return bool(await connection.fetchval(GOOD, [digest(keys.live), digest(keys.test)]) == 2)
    finally:
        await connection.close()


async def make(url: str) -> Keys:
    from service import db  # noqa: PLC0415 - a second only the first run pays
    from service.access.keys import create  # noqa: PLC0415

    engine = db.create_engine(Settings.from_env({"DATABASE_URL": url}))
    try:
        async with db.transaction(db.sessions(engine)) as session:
            _, live = await create(session, TENANT, ["*"], name="demo")
            _, test = await create(session, TENANT, ["*"], name="demo", mode="test")
    finally:
        await engine.dispose()
    return Keys(live, test)
