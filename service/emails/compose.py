"""What is looked up before a request becomes a draft: who a user is, which version of a template is published."""

from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from service.core.errors import Fault, Invalid
from service.db.tenancy import mode_of
from service.domains.sender_policy import House
from service.domains.verified import Domains
from service.emails.prepare import Draft, draft
from service.emails.schemas import EmailRequest, UserRef
from service.templates.reference import pin, template_faults
from service.templates.schemas import TemplateRef
from service.templates.tenant.lookup import BUILT_IN, Library, Pinned
from service.users.lookup import find

ANY = frozenset({"*"})
"""In place of the domains that an email may come from: every domain."""


class Desk:
    """Makes the drafts of one tenant."""

    def __init__(
        self,
        house: House,
        library: Library,
        domains: Domains,
        engine: AsyncEngine,
        tenant_id: UUID | None,
        *,
        strict: bool = False,
    ) -> None:
        """`strict`: a sender that a mail names must be of a domain that the tenant has verified."""
        self._house, self._library, self._domains, self._engine = house, library, domains, engine
        self._tenant_id, self._mode, self._strict = tenant_id, mode_of(tenant_id), strict

    async def draft(self, request: EmailRequest) -> Draft:
        """Check a request against every rule; the mail it asks for. Raises Invalid, Forbidden."""
        house = self._house if request.sender is None else await self._allowed()
        if isinstance(request.to, UserRef):
            request = await self._to_user(request, request.to)
        if request.template is None:
            return draft(request, house)
        pinned = await self.pin(request.template)
        if pinned is None and request.template.version is not None:  # that version has no such language
            request = msgspec.structs.replace(request, template=_built_in(request.template))
        return draft(request, house, pinned=pinned)

    async def pin(self, wanted: TemplateRef) -> Pinned | None:
        """Return the version that is meant; None for a built-in template. Raises Invalid for an unknown version."""
        return await pin(self._library, self._tenant_id, wanted)

    async def _allowed(self) -> House:
        """The house with the domains that this tenant may send from."""
        if self._tenant_id is None:
            return self._house
        if self._mode == "test":  # nothing leaves, so no domain has to be verified
            return msgspec.structs.replace(self._house, domains=ANY)
        verified = await self._domains.of(self._tenant_id)
        domains = verified if self._strict else self._house.domains | verified
        return msgspec.structs.replace(self._house, domains=domains, verified_only=self._strict)

    async def _to_user(self, request: EmailRequest, user: UserRef) -> EmailRequest:
        """The same mail to the user's address, in the user's language unless it names one. Raises Invalid."""
        person = None
        if self._tenant_id is not None:
            async with self._engine.connect() as connection:
                person = await find(connection, self._tenant_id, self._mode, user.user_id)
        if person is None or person.email is None:
            lack = "there is no such user" if person is None else "this user has no address"
            raise Invalid([Fault("/to/user_id", f"{lack}; see /v1/users.")])
        template = request.template
        if template is not None and template.locale is None:
            template = msgspec.structs.replace(template, locale=person.locale)
        return msgspec.structs.replace(request, to=person.email, template=template)

    async def variable_faults(self, wanted: TemplateRef) -> list[Fault]:
        """Every reason for which a template cannot be filled in with these variables. Raises Invalid."""
        pinned = await self.pin(wanted)
        return list(template_faults(wanted if pinned else _built_in(wanted), pinned=pinned))

    async def version(self, wanted: TemplateRef) -> int:
        """The number of the version that is meant, in whatever language: the published one unless it is named."""
        if wanted.version is not None or self._tenant_id is None:
            return wanted.version or BUILT_IN
        published = await self._library.shelf.published(self._tenant_id, wanted.key)
        return BUILT_IN if published is None else published.version


def _built_in(wanted: TemplateRef) -> TemplateRef:
    return msgspec.structs.replace(wanted, version=None)
