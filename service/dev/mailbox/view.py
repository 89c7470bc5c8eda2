"""A mail's HTML made safe to look at: no scripts, nothing loaded from anywhere, links open elsewhere."""

import base64
import re

from service.dev.mailbox.mail import Mail

# the sandbox directive holds even when the page is opened by itself; a mail may bring its own styles and nothing else
POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LINKS = '<base target="_blank">'
HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
CID = re.compile(r"cid:([^\"'\s)>]+)", re.IGNORECASE)


def page(mail: Mail) -> str:
    """The HTML part as a page of its own, its ``cid:`` images (RFC 2392) put in place."""
    images = {part.content_id: part for part in mail.parts if part.content_id}

    def embed(match: re.Match[str]) -> str:
        part = images.get(match[1])
        if part is None or not part.type.startswith("image/"):
            return match[0]
        return f"data:{part.type};base64,{base64.b64encode(part.content).decode()}"

    html = CID.sub(embed, mail.html)
    marked, found = HEAD.subn(lambda match: match[0] + LINKS, html, count=1)
    return marked if found else LINKS + html
