"""What a command says where neither the environment nor its folder names servers."""

import contextlib
import os
from collections.abc import Iterator

import click

NOTHING_NEAR = (
    "`callboard up` does not run in {data}, and DATABASE_URL is not set. "
    "Start `callboard up` here, name the folder of one with --data, or set DATABASE_URL."
)


@contextlib.contextmanager
def hinting() -> Iterator[None]:
    """Say what to do, where a command ends badly that had no servers to ask."""
    try:
        yield
    except SystemExit:
        if hint := nothing_near():
            click.echo(hint, err=True)
        raise


def nothing_near() -> str:
    """What to do where neither the environment nor the folder of the running command names servers; else empty."""
    from service.local_stack import running  # noqa: PLC0415

    data = click.get_current_context().params.get("data")
    if data is None or "DATABASE_URL" in os.environ or running(data):
        return ""
    return NOTHING_NEAR.format(data=data)
