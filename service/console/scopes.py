"""The scope that each page and verb of the console requires: that of the API route which does the same.

A route of the console that is missing here answers 403 to every key, so a new page cannot open more than its author
decided. `tests/service/console/test_scopes.py` compares each entry with its API route.
"""

from typing import NamedTuple

from service.core.errors import Forbidden
from service.web import Principal


class Twin(NamedTuple):
    """The API route that reads or does the same as a route of the console, and the scope that both require."""

    route: str
    scope: str


OPERATOR = None
"""For a route that shows counts of every tenant or nothing at all: `operator`, which signing in requires, is enough."""

SEND, READ_EMAILS = "emails:send", "emails:read"
READ_TASKS, WRITE_TASKS = "tasks:read", "tasks:write"

TWINS: dict[str, Twin | None] = {
    "GET /console": OPERATOR,
    "GET /console/find": OPERATOR,
    "POST /console/sign-out": OPERATOR,
    # the two of tenants require the scope `admin`, which the pages check themselves: no route of the API does the same
    "GET /console/tenants": OPERATOR,
    "POST /console/tenants/switch": OPERATOR,
    "GET /console/emails": Twin("GET /v1/emails", READ_EMAILS),
    "GET /console/emails/{id}": Twin("GET /v1/emails/{email_id}", READ_EMAILS),
    "GET /console/emails/{id}/frame": Twin("GET /v1/emails/{email_id}/content", READ_EMAILS),
    "POST /console/emails/{id}/cancel": Twin("POST /v1/emails/{email_id}/cancel", SEND),
    "POST /console/emails/{id}/resend": Twin("POST /v1/emails/{email_id}/resend", SEND),
    "POST /console/emails/{id}/requeue": Twin("POST /v1/dead-letters/requeue", WRITE_TASKS),
    "POST /console/emails/{id}/resolve": Twin("POST /v1/dead-letters/resolve", WRITE_TASKS),
    "GET /console/bulk": Twin("GET /v1/bulk", READ_EMAILS),
    "GET /console/bulk/{id}": Twin("GET /v1/bulk/{id}", READ_EMAILS),
    "POST /console/bulk/{id}/cancel": Twin("POST /v1/bulk/{id}/cancel", SEND),
    "POST /console/bulk/{id}/{verb}": Twin("POST /v1/bulk/{id}/pause", SEND),
    "GET /console/templates": Twin("GET /v1/templates", READ_EMAILS),
    "GET /console/templates/{key}": Twin("GET /v1/templates/{key}", READ_EMAILS),
    "GET /console/templates/{key}/frame": Twin("POST /v1/templates/{key}/preview", READ_EMAILS),
    "GET /console/suppressions": Twin("GET /v1/suppressions", "suppressions:read"),
    "POST /console/suppressions/{id}/remove": Twin("DELETE /v1/suppressions/{suppression_id}", "suppressions:write"),
    "GET /console/domains": Twin("GET /v1/senders", "senders:read"),
    "GET /console/transports": Twin("GET /v1/transports", "transports:read"),
    "GET /console/users": Twin("GET /v1/users", "users:read"),
    "GET /console/users/{id}": Twin("GET /v1/users/{user_id}", "users:read"),
    "GET /console/keys": OPERATOR,
    "GET /console/{path}": OPERATOR,
    "GET /console/jobs": Twin("GET /v1/jobs", "jobs:read"),
    "GET /console/jobs/{id}": Twin("GET /v1/jobs/{job_id}", "jobs:read"),
    "POST /console/jobs/{id}/cancel": Twin("POST /v1/jobs/{job_id}/cancel", "jobs:write"),
    "POST /console/jobs/{id}/retry": Twin("POST /v1/jobs/{job_id}/retry", "jobs:write"),
    "GET /console/quotas": Twin("GET /v1/organizations/{organization_id}/quotas", "organizations:read"),
    "GET /console/notifications": Twin("GET /v1/notifications", "notifications:read"),
    "GET /console/notifications/{id}": Twin("GET /v1/notifications/{notification_id}", "notifications:read"),
    "GET /console/webhooks": Twin("GET /v1/webhooks", "webhooks:read"),
    "GET /console/webhooks/{id}": Twin("GET /v1/webhooks/{webhook_id}/deliveries", "webhooks:read"),
    "GET /console/webhooks/{id}/{delivery}": Twin(
        "GET /v1/webhooks/{webhook_id}/deliveries/{delivery_id}", "webhooks:read"
    ),
    "POST /console/webhooks/{id}/enabled": Twin("PATCH /v1/webhooks/{webhook_id}", "webhooks:write"),
    "POST /console/webhooks/{id}/test": Twin("POST /v1/webhooks/{webhook_id}/test", "webhooks:write"),
    "POST /console/webhooks/{id}/{delivery}/redeliver": Twin(
        "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", "webhooks:write"
    ),
    "GET /console/dead-letters": Twin("GET /v1/dead-letters", READ_TASKS),
    "POST /console/dead-letters/{verb}": Twin("POST /v1/dead-letters/requeue", WRITE_TASKS),
    "GET /console/tasks": Twin("GET /v1/dead-letters", READ_TASKS),
    "GET /console/tasks/{id}": Twin("GET /v1/tasks/{task_id}", READ_TASKS),
    "POST /console/tasks/{id}/cancel": Twin("POST /v1/tasks/{task_id}/cancel", WRITE_TASKS),
    "POST /console/tasks/{id}/requeue": Twin("POST /v1/dead-letters/requeue", WRITE_TASKS),
    "GET /console/requests/{id}": Twin("GET /v1/requests/{request_id}", READ_TASKS),
}
"""By method and path of the console's route. A verb in the path requires one scope, whichever it is."""

WHOLE = {"GET /console/keys"}
"""Routes for a key with every scope (`*`) or `admin`: no route of the API shows the same."""


def check(user: Principal, method: str, path: str) -> None:
    """Refuse a route of the console for which `user`'s key lacks the scope. Raises Forbidden, which names it."""
    route = f"{'GET' if method == 'HEAD' else method} {path}"
    if route not in TWINS:
        raise Forbidden(f"No scope is declared for {route}: add it to service/console/scopes.py.", code="scope-missing")
    if route in WHOLE and not _is_whole(user):
        raise Forbidden(
            "This page requires a key with every scope: "
            "callboard keys create --tenant NAME --scope operator --scope '*'",
            code="scope-missing",
        )
    twin = TWINS[route]
    if twin is not None and not user.may(twin.scope):
        raise Forbidden(
            f"The key of this session lacks {twin.scope}. Sign in with a key that has it: "
            f"callboard keys create --tenant NAME --scope operator --scope {twin.scope}",
            code="scope-missing",
        )


def may_open(user: Principal, path: str) -> bool:
    """Report whether `user`'s key has the scope of the page at `path`, a path without parameters."""
    route = f"GET {path}"
    twin = TWINS[route]
    return _is_whole(user) if route in WHOLE else twin is None or user.may(twin.scope)


def _is_whole(user: Principal) -> bool:
    return "*" in user.scopes or user.administers
