"""Whose users a request is about."""

from service.users.repository import Who
from service.web import Request


def who(request: Request) -> Who:
    """The tenant of the key, and whether it is a live or a test key."""
    return Who(tenant_id=request.user.tenant_id, mode=request.user.mode)
