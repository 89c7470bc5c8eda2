"""Tenants' templates for those who accept and send mail: which version a mail is made of, and the mail it makes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.common.fair import Turn, current_turn
from callboard_workers.runtime import Runtime
from service.mail.faults import Fault, Refused
from service.mail.headers import subject_faults
from service.templates.source import Declared
from service.templates.template import Rendered
from service.templates.tenant.cache import Shelf, Version
from service.templates.tenant.compile import Job
from service.templates.tenant.content import Needs, Words
from service.templates.tenant.sandbox_pool import Killed, Renderers

BUILT_IN = 0
"""The version of every built-in template."""


MOST_KILLS = 3
LOCKOUT = 60.0
"""Seconds for which a version that was killed MOST_KILLS times is not filled in: others need the processes too."""


class Pinned(msgspec.Struct, frozen=True):
    """One language of one version: what a mail is made of, whatever is published later."""

    version: Version
    locale: str

    @property
    def needs(self) -> Needs:
        """What filling it in takes."""
        return self.version.needs[self.locale]


class UnknownVersion(Exception):
    """The tenant's template has no version of this number."""


class Library:
    """The shelf and the renderers of one process."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.shelf = Shelf(engine)
        self.renderers = Renderers()
        self._kills: dict[str, list[float]] = {}

    @classmethod
    def of_runtime(cls, runtime: Runtime) -> Library:
        """Return the tenants' templates of this process; closed with the runtime."""
        return runtime.resource("tenant_templates", lambda: cls(runtime.require_engine()), cls.close)

    async def pin(self, tenant_id: UUID, key: str, version: int | None, locale: str | None) -> Pinned | None:
        """The version that a mail of this tenant is made of now; None for the built-in template, which 0 names too.

        Raises UnknownVersion where a version is named that there is not.
        """
        if version == BUILT_IN:
            return None
        if version is None:
            found = await self.shelf.published(tenant_id, key)
        elif (found := await self.shelf.version(tenant_id, key, version)) is None:
            raise UnknownVersion(f"there is no version {version} of this template")
        if found is None or (nearest := found.nearest(locale)) is None:
            return None
        return Pinned(found, nearest)

    async def fill(self, pinned: Pinned, variables: Mapping[str, Any]) -> Rendered:
        """Make the mail. Raises Refused where the template cannot be filled in, Busy where no process was free."""
        version, locale = pinned.version, pinned.locale
        job = Job(
            key=version.key,
            variables=version.variables,
            name=version.name(locale),
            owner=version.tenant_id.hex,
            given=dict(variables),
        )
        self._check_kills(version.name(locale))
        try:
            found = await self.renderers.ask(job, _turn(version.tenant_id), contents=partial(self._contents, pinned))
        except Killed as error:
            self._kills.setdefault(version.name(locale), []).append(time.monotonic())
            raise Refused([Fault("template", "killed", f"cannot be filled in: {error}")]) from error
        if found.rendered is None:
            raise Refused(Fault(part or "template", "template", sentence) for part, sentence in found.faults)
        if faults := subject_faults(found.rendered.subject):
            raise Refused(faults)
        return found.rendered

    async def _contents(self, pinned: Pinned) -> dict[str, Words]:
        return {pinned.locale: await self.shelf.words(pinned.version, pinned.locale)}

    def _check_kills(self, name: str) -> None:
        """Raise Refused for what was killed again and again."""
        since = time.monotonic() - LOCKOUT
        self._kills = {one: late for one, kills in self._kills.items() if (late := [at for at in kills if at > since])}
        if len(self._kills.get(name, ())) >= MOST_KILLS:
            reason = f"was stopped {MOST_KILLS} times within {LOCKOUT:.0f} s, because it took too much"
            raise Refused([Fault("template", "killed", reason)])

    async def compile(
        self, tenant_id: UUID, key: str, contents: Mapping[str, Words], variables: Mapping[str, Declared] | None
    ) -> dict[str, Needs]:
        """What each language of a tenant's template needs. Raises Refused naming what does not compile, Busy."""
        declared = None if variables is None else dict(variables)
        try:
            job = Job(key=key, contents=dict(contents), variables=declared)
            found = await self.renderers.ask(job, _turn(tenant_id))
        except Killed as error:
            raise Refused([Fault("contents", "killed", f"cannot be compiled: {error}")]) from error
        if found.faults:
            raise Refused(_faults(found.faults))
        return found.needs

    async def close(self) -> None:
        """End the renderers."""
        await self.renderers.close()


def _turn(tenant_id: UUID) -> Turn:
    return Turn(current_turn().priority, tenant_id)


def _faults(found: Iterable[tuple[str, str]]) -> list[Fault]:
    return [Fault(f"contents/{where}" if where else "contents", "template", sentence) for where, sentence in found]
