"""Text among the arguments of a command: one line, of a bounded length."""

import re

import click

UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, which a terminal obeys, and bytes that are not UTF-8, which Python hands on as surrogates."""


class Line(click.ParamType[str]):
    """A text of `least` to `most` characters without line breaks and other control characters."""

    name = "text"

    def __init__(self, most: int, *, least: int = 0) -> None:
        self.least = least
        self.most = most

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value` as it is. Fails with what is wrong about it."""
        if found := UNFIT.search(value):
            place = f"{found[0]!a} at place {found.start() + 1}"
            self.fail(f"control characters, and what is not UTF-8, are not taken ({place}).", param, ctx)
        if not self.least <= len(value) <= self.most:
            self.fail(f"it has {len(value)} characters; {self.least} to {self.most} are taken.", param, ctx)
        return value
