"""One long-lived Redis connection that runs batches of commands, each batch within a deadline."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from callboard_workers.errors import BrokerUnavailable
from callboard_workers.redis import address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.connection import AbstractConnection, ConnectionPool

Command = tuple[str | bytes | int | float, ...]


class Link:
    """A connection to the broker that is made on first use and dropped on the first doubt.

    Client objects are dear to build, so a loop keeps its links. A link serves one caller at a time. The URL is
    redis-py's, or names sentinels (callboard_workers.redis.address).
    """

    def __init__(self, url: str, *, connect_timeout: float = 2.0) -> None:
        self._pool: ConnectionPool = address.pool(
            url,
            protocol=2,
            driver_info=None,
            socket_connect_timeout=connect_timeout,
            socket_timeout=None,  # every batch brings its own deadline
            socket_keepalive=True,
        )
        self._connection: AbstractConnection | None = None

    async def call(self, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        """Runs the commands in one round trip; a command's error takes the place of its reply.

        `timeout` is in seconds, for connecting, writing and reading together; None waits for ever (a blocking
        command). Raises BrokerUnavailable when the batch was not answered whole: what it did is then unknown.
        """
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connected()
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                return [await _reply(connection) for _ in commands]
        except TimeoutError as error:
            await self._drop()
            raise BrokerUnavailable(f"the broker did not answer within {timeout} s") from error
        except (RedisError, OSError) as error:
            await self._drop()
            raise BrokerUnavailable(f"the broker is unreachable: {error}") from error
        except BaseException:
            await self._drop()
            raise

    async def close(self) -> None:
        """Closes the connection; a later call makes a new one."""
        await self._drop()

    async def _connected(self) -> AbstractConnection:
        if self._connection is None:
            self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        if not self._connection.is_connected:
            await self._connection.connect()
            await address.rest(self._pool)
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error
