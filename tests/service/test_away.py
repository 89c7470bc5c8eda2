"""What is taken for a Postgres that is away, and what for a bug."""

import errno
import os
import socket

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from service.db.engine import is_away

SEVERAL = "Multiple exceptions: [Errno 111] Connect call failed (::1), [Errno 111] Connect call failed (127.0.0.1)"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),  # a container that is down has no name
        OSError(SEVERAL),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        TimeoutError(),
        asyncpg.AdminShutdownError("terminating connection"),
        DBAPIError("SELECT 1", None, asyncpg.TooManyConnectionsError("too many clients")),
    ],
    ids=repr,
)
def test_a_server_that_cannot_be_reached_is_away(error: BaseException) -> None:
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
        OSError(errno.ENOSPC, "No space left on device"),
        DBAPIError("SELECT 1", None, asyncpg.UndefinedTableError("no such table")),
        ValueError("x"),
    ],
    ids=repr,
)
def test_anything_else_is_not(error: BaseException) -> None:
    assert not is_away(error)
