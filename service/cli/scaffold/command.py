"""Runs `callboard new` in this checkout and says what stands in the way."""

from collections.abc import Callable

import click

from service.cli.scaffold.checkout import Checkout
from service.cli.scaffold.making import make_actor, make_slice
from service.cli.scaffold.names import Refused

__all__ = ["make_actor", "make_slice", "run"]


def run(make: Callable[..., None], *arguments: str, **named: str | None) -> int:
    """Make something; the exit code, 1 where it was refused, with every fault on a line of its own."""
    try:
        make(Checkout.here(), *arguments, click.echo, **named)
    except Refused as refused:
        click.echo("\n".join(["nothing was written:", *(f"  {fault}" for fault in refused.faults)]), err=True)
        return 1
    return 0
