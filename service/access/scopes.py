"""Which scopes a key may be given: those that routes ask for, all of a slice, all there are, and two apart."""

from collections.abc import Collection, Sequence

import click

APART = ("operator", "admin")
"""Scopes that no other implies."""


def check(wanted: Sequence[str], known: Collection[str]) -> None:
    """Refuse scopes that no route asks for, all of them at once; `known` are those of the routes. Raises UsageError."""
    wholes = {f"{name.partition(':')[0]}:*" for name in known}
    odd = [name for name in wanted if name not in {*known, *wholes, *APART, "*"}]
    if odd:
        raise click.UsageError(
            f"No route asks for {', '.join(odd)}. There are {', '.join(sorted(known))}; "
            f"`emails:*` and its like for all of a slice, `*` for all of them; and apart {' and '.join(APART)}."
        )
