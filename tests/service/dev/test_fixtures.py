"""The fixtures every other test stands on."""

import asyncio
import smtplib

import asyncpg
import redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.dev.stack import Stack


async def count(url: str, table: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await connection.close()


async def test_a_database_is_fresh_and_its_engine_uses_it(engine: AsyncEngine, database: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE left_by_a_test AS SELECT 1 AS n"))
    assert await count(database, "left_by_a_test") == 1


async def test_the_next_database_shows_nothing_of_the_last(database: str) -> None:
    assert await count(database, "pg_class WHERE relname = 'left_by_a_test'") == 0


async def test_an_empty_database_has_no_table(empty_database: str) -> None:
    assert await count(empty_database, "pg_tables WHERE schemaname = 'public'") == 0


def test_a_database_serves_a_plain_test_too(database: str) -> None:
    assert asyncio.run(count(database, "pg_class")) > 0


async def test_words_sort_and_fold_alike_on_every_machine(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT lower('ÄÖ') || current_setting('server_encoding')") == "äöUTF8"
    await connection.close()


def test_redis_is_clean_and_never_evicts(redis_url: str, stack: Stack) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("appendonly")["appendonly"] == "yes"


async def test_the_mailbox_keeps_what_was_sent_byte_for_byte(mailbox) -> None:
    raw = b"Subject: gr\xc3\xbc\xc3\x9fe\r\n\r\n.a dot\r\n..two\r\n"

    def send() -> None:
        with smtplib.SMTP(mailbox.host, mailbox.port) as client:
            client.ehlo()
            client.login("anybody", "anything")
            assert {"8bitmime", "smtputf8", "size", "pipelining"} <= set(client.esmtp_features)
            client.sendmail("a@example.org", ["ä@example.org", "b@example.org"], raw, ["SMTPUTF8", "BODY=8BITMIME"])

    await asyncio.to_thread(send)
    (mail,) = await mailbox.wait(1)
    assert (mail.sender, mail.recipients, mail.raw) == ("a@example.org", ("ä@example.org", "b@example.org"), raw)
