"""What `callboard keys …` does."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click
from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from service.access import keys
from service.access.models import ApiKey, Tenant
from service.access.secrets import Mode
from service.db import engine as db
from service.settings import Settings

NO_KEY = "There is no such key in use: `callboard keys list` shows those there are."


async def create(
    settings: Settings, tenant: str, scopes: Sequence[str], *, name: str, mode: Mode, expires_days: int | None
) -> int:
    """Make a key; its text goes to standard output alone, the rest to standard error, so that a script can take it."""
    engine = _engine(settings)
    expires = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    try:
        async with db.transaction(db.sessions(engine)) as session:
            row, text = await keys.create(session, tenant, scopes, name=name, mode=mode, expires_at=expires)
            oldest = (await session.execute(select(Tenant.name).order_by(Tenant.id).limit(1))).scalar_one()
    finally:
        await engine.dispose()
    if oldest != tenant and not settings.celery_tenant:
        click.echo(f"Celery's old task names act for {oldest}; set CELERY_TENANT to choose another.", err=True)
    click.echo(f"{mode} key ak_{row.id.hex} of {tenant}: {', '.join(row.scopes)}. It is shown this once:", err=True)
    click.echo(text)
    return 0


async def show(settings: Settings, tenant: str | None) -> int:
    """List keys, newest last."""
    engine = _engine(settings)
    statement = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id).order_by(Tenant.name, ApiKey.id)
    try:
        async with db.sessions(engine)() as session:
            found = (await session.execute(statement.where(Tenant.name == tenant) if tenant else statement)).all()
    finally:
        await engine.dispose()
    out = Console()
    for key, owner in found:
        if out.is_terminal:
            out.print(_drawn(key, owner))
        else:
            words = f"ak_{key.id.hex} {_state(key)} {owner} {','.join(key.scopes)} {key.name}".strip()
            out.print(words, markup=False, highlight=False, soft_wrap=True)
    if not found:
        out.print("No keys yet: `callboard keys create --tenant NAME` makes one.")
    return 0


async def rotate(settings: Settings, key_id: str, *, overlap_hours: int) -> int:
    """Make a key that takes the place of another, which goes on for a while; its text goes to standard output."""
    wanted, engine = _id(key_id), _engine(settings)
    try:
        async with db.transaction(db.sessions(engine)) as session:
            made = await keys.rotate(session, wanted, timedelta(hours=overlap_hours))
    finally:
        await engine.dispose()
    if made is None:
        click.echo(NO_KEY)
        return 1
    row, text = made
    click.echo(f"{row.mode} key ak_{row.id.hex}; the old one ends within {overlap_hours} h. Shown this once:", err=True)
    click.echo(text)
    return 0


async def revoke(settings: Settings, key_id: str) -> int:
    """Revoke a key; 1 where there is no such key, or it was revoked before."""
    wanted = _id(key_id)
    engine = _engine(settings)
    try:
        async with db.transaction(db.sessions(engine)) as session:
            done = await keys.revoke(session, wanted)
    finally:
        await engine.dispose()
    click.echo("Revoked; every process refuses it within five seconds." if done else NO_KEY)
    return 0 if done else 1


def _drawn(key: ApiKey, owner: str) -> Group:
    state = _state(key)
    line = Text.assemble(f"ak_{key.id.hex}  ", (state, "red" if state in {"revoked", "expired"} else "green"))
    line.append(f"  {owner}", "bold").append(f"  {key.name}" if key.name else "")
    ends = "" if key.expires_at is None else f", ends {_date(key.expires_at)}"
    dates = f"made {_date(key.created_at)}, last used {_date(key.last_used_at)}{ends}"
    return Group(line, Padding(Text(f"{key.prefix}…  {' '.join(key.scopes)}\n{dates}", "dim"), (0, 0, 0, 4)))


def _id(key_id: str) -> UUID:
    try:
        return UUID(key_id.removeprefix("ak_"))
    except ValueError:
        raise click.ClickException(f"{key_id!r} is not an id such as `callboard keys list` shows (ak_…).") from None


def _engine(settings: Settings) -> AsyncEngine:
    return db.create_engine(settings, application="callboard-keys")


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else key.mode


def _date(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
