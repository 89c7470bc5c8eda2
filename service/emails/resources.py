"""What the emails slice keeps for each process: the house rules, the mailer, the loader; made when first asked for."""

from collections.abc import Callable
from uuid import UUID

from callboard_workers.common.fair import FairLimiter
from callboard_workers.runtime import Runtime
from service.domains.sender_policy import house_of
from service.domains.verified import Domains
from service.emails.compose import Desk
from service.emails.delivery import Mailer
from service.emails.large import SHARE, Large
from service.emails.load import LIGHT, Loader, Stored, content
from service.mail.address_text import read_back
from service.mail.message import Mail
from service.settings import Settings
from service.suppressions.unsubscribe.links import Links, headers
from service.templates.tenant.lookup import Library


class Office:
    """Everything needed to take and to send mail on one loop."""

    def __init__(self, runtime: Runtime) -> None:
        settings: Settings = runtime.state["settings"]
        engine = runtime.require_engine()
        self.house = house_of(settings)
        self.mailer = Mailer(settings, engine)
        self.loader = Loader(engine)
        self.engine = engine
        self.library = Library.of_runtime(runtime)
        self.links = Links.of_runtime(runtime)
        self.domains = Domains.of_runtime(runtime)
        self.memory = FairLimiter(settings.email_memory, share=SHARE)
        self._strict = settings.mail_verified

    @classmethod
    def of_loop(cls) -> "Office":
        """The office of the runtime on this loop. Raises NoRuntime where none was started."""
        return cls.of(Runtime.of_loop())

    @classmethod
    def of(cls, runtime: Runtime) -> "Office":
        """The office of a runtime; closed with it."""
        return runtime.resource("emails", lambda: cls(runtime), cls.close)

    def desk(self, tenant_id: UUID | None) -> Desk:
        """Where the mails of a tenant are drafted."""
        return Desk(self.house, self.library, self.domains, self.engine, tenant_id, strict=self._strict)

    async def compose(self, stored: Stored, *, rendered: Callable[[str], None] | None = None) -> Mail | Large:
        """A stored email as the mailer sends it: a light one as a whole, a large one composed when it is its turn.

        `rendered` is called with the subject of an email from a template. Raises what `stored.content` raises.
        """
        link = self.links.link(stored.reader)
        if stored.size <= LIGHT or stored.template_key is not None:
            made = await content(stored, self.library, link)
            if rendered is not None and stored.template_key is not None:
                rendered(made.subject)
            size = stored.size + sum(map(len, (made.html or "", made.text or "")))
            if size <= LIGHT:
                return stored.mail(made, headers(link))
        else:
            size = stored.size

        async def whole() -> Mail:
            complete = await self.loader.complete(stored)
            return complete.mail(await content(complete, self.library, link), headers(link))

        return Large(read_back(stored.sender).addr_spec, size, self.memory, whole)

    async def close(self) -> None:
        """Finish what is under way."""
        await self.loader.close()
        await self.mailer.close()
