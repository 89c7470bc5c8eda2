"""The door: sign in with an API key, or by the link of `callboard up` on this machine; sign out."""

from ipaddress import ip_address
from typing import Any

from litestar import Response, get, post

from service.console.pages import rendered, to
from service.console.sessions import unseal
from service.console.visiting import act_for, begin, end, form, plain_form, signed_in
from service.web import Request

PATH = "/console/sign-in"
LOCAL = {"localhost", "127.0.0.1", "::1"}

UNKNOWN = "The key is unknown, expired or revoked."
NO_OPERATOR = (
    "The key is good, but it is not an operator's. Make one that is: "
    "callboard keys create --tenant NAME --scope '*' --scope operator"
)
OVER = "The link is over, or was made for another machine. Sign in with a key instead."


def door(wanted: str = "/console", *, wrong: str = "", status: int = 200) -> Response[str]:
    """Answer the page on which one signs in; `wanted` is where one goes from there."""
    place = wanted if wanted.startswith("/console") and "\\" not in wanted and wanted != PATH else "/console"
    return rendered("sign_in.html", {"wrong": wrong, "next": place}, status=status)


@get("/sign-in")
async def show() -> Response[str]:
    """Show the door."""
    return door()


@post("/sign-in", status_code=200)
async def enter(request: Request) -> Response[Any]:
    """Sign in with an API key that has the scope `operator` or `admin`."""
    found = await plain_form(request)
    key, wanted = found.get("key", [""])[0].strip(), found.get("next", ["/console"])[0]
    known = await request.app.state.keyring.find(key)
    if known is None:
        return door(wanted, wrong=UNKNOWN, status=401)
    if not known.operates:
        return door(wanted, wrong=NO_OPERATOR, status=403)
    place = wanted if wanted.startswith("/console") and "\\" not in wanted else "/console"
    return to(place, await begin(request, known.key_id, known.tenant_id))


@get("/enter")
async def enter_here(request: Request) -> Response[Any]:
    """Sign in by the link that `callboard up` printed: from this machine only.

    It answers a page that goes on by itself, because a cookie that is `SameSite=Strict` does not come along with a
    redirect that another program began.
    """
    settings = request.app.state.settings
    given = unseal(settings.secret_key, request.query_params.get("pass", ""), "pass")
    if given is None or not _is_here(request):
        return door(wrong=OVER, status=401)
    act_for(given.tenant_id)
    return rendered("enter.html", {}, headers=await begin(request, given.key_id, given.tenant_id))


@post("/sign-out", guards=[signed_in], status_code=200)
async def leave(request: Request) -> Response[Any]:
    """Sign out: the session ends on the server, whoever has a copy of its cookie."""
    await form(request)
    return to(PATH, await end(request))


def _is_here(request: Request) -> bool:
    """Whether a browser on this machine asks, by a name of this machine: no other site can have it ask for that."""
    host = (
        request.headers.get("host", "").rpartition("]")[0].lstrip("[") or request.headers.get("host", "").split(":")[0]
    )
    try:
        from_here = request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        from_here = False
    return from_here and host in LOCAL


handlers = [show, enter, enter_here, leave]
