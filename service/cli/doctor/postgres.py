"""Looks at Postgres: can it be reached, will it keep what it is given, has it the tables, do the clocks agree."""

import dataclasses
import time
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cli.doctor.finding import Finding, Mark, Section, Wrong, judge, look
from service.db import engine as db
from service.db import migrate
from service.settings import Settings

OLDEST = 150000  # server_version_num
MAX_SKEW = 5.0  # seconds
_FACTS = text(
    "SELECT clock_timestamp() AS now, current_setting('server_version') AS version,"
    " current_setting('server_version_num')::int AS number, pg_is_in_recovery() AS replica,"
    " current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,"
    " current_setting('synchronous_commit') AS synchronous_commit,"
    " current_setting('max_connections')::int AS max_connections,"
    " current_user AS role, r.rolsuper AS superuser, r.rolbypassrls AS bypass"
    " FROM pg_roles r WHERE r.rolname = current_user"
)
_RIGHTS = text(
    "SELECT count(*) FILTER (WHERE NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')"
    " AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))) AS missing,"
    " count(*) AS tables, current_user AS role"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname = current_schema() AND c.relname <> 'alembic_version'"
)


async def examine(settings: Settings) -> Section:
    """Look at the Postgres of DATABASE_URL."""
    patient = dataclasses.replace(settings, db_connect_timeout=5.0)
    engine = db.create_engine(patient, application="callboard-doctor", pool_timeout=5, statement_timeout=5, role=None)
    findings: list[Finding] = []
    url = make_url(settings.database_url)
    facts: dict[str, Any] = {}

    async def connect() -> str:
        async with engine.connect() as connection:
            before = time.time()
            facts.update((await connection.execute(_FACTS)).mappings().one())
            facts["skew"] = facts["now"].timestamp() - (before + time.time()) / 2
        return f"{url.host or 'local socket'}, database {url.database}, as {facts['role']}"

    try:
        mend = "Check that Postgres runs and that DATABASE_URL names its host, port, database, user and password."
        if await look(findings, "connect", mend, connect):
            findings += _server(facts)
            await _schema(patient, engine, findings)
    finally:
        await engine.dispose()
    return Section(name="Postgres", findings=findings)


def _server(facts: dict[str, Any]) -> list[Finding]:
    skew = facts["skew"]
    unsafe = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if facts[name] == "off"]
    too_mighty = [word for word, held in (("superuser", facts["superuser"]), ("bypassrls", facts["bypass"])) if held]
    return [
        judge("version", facts["version"], "Use PostgreSQL 15 or newer.", good=facts["number"] >= OLDEST),
        judge(
            "writable",
            "a read-only replica" if facts["replica"] else "the primary",
            "Point DATABASE_URL at the primary.",
            good=not facts["replica"],
        ),
        judge(
            "durability",
            f"{', '.join(unsafe)} off" if unsafe else "a commit is on disk",
            f"Switch {', '.join(unsafe)} on in postgresql.conf: a power cut would lose work already accepted.",
            good=not unsafe,
            otherwise=Mark.DOUBTFUL,
        ),
        judge(
            "role",
            f"{facts['role']}, {' and '.join(too_mighty)}" if too_mighty else str(facts["role"]),
            "Give the service a role of its own, NOSUPERUSER NOBYPASSRLS.",
            good=not too_mighty,
            otherwise=Mark.DOUBTFUL,
        ),
        judge(
            "clock",
            f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's",
            "Run NTP (chrony, systemd-timesyncd) on both machines: times in ids and logs will not agree.",
            good=abs(skew) <= MAX_SKEW,
            otherwise=Mark.DOUBTFUL,
        ),
    ]


async def _schema(settings: Settings, engine: AsyncEngine, findings: list[Finding]) -> None:
    async def revision() -> str:
        has, needs = await migrate.current(engine), migrate.head()
        if has != needs:
            raise Wrong(f"the database is at {has or 'nothing'}, this version needs {needs}")
        return f"at {has}"

    async def rights() -> str:
        acting = db.create_engine(settings, application="callboard-doctor", pool_timeout=5, statement_timeout=5)
        try:
            async with acting.connect() as connection:
                row = (await connection.execute(_RIGHTS)).one()
        finally:
            await acting.dispose()
        if row.missing:
            raise Wrong(f"no right to read and write {row.missing} of {row.tables} tables")
        return f"may read and write {row.tables} tables, as {row.role}"

    if await look(findings, "migrations", "Run `callboard migrate`.", revision):
        mend = "Let DATABASE_URL's user act as the roles: GRANT callboard_api, callboard_worker TO it (DB_SET_ROLE)."
        await look(findings, "rights", mend, rights)
