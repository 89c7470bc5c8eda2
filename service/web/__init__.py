"""HTTP plumbing: who calls, strict bodies, idempotency, the accept path, pages, problems, and the edge around it all.

What a slice needs is importable from here.
"""

from service.web.accept import Accepted, Outcome, Submission, accept
from service.web.accept_sql import Table
from service.web.auth import Principal, require
from service.web.idempotency import Answer, once
from service.web.json_body import Body
from service.web.openapi import accepts, answers, examples
from service.web.pagination import Cursor, Limit, Page, Pager
from service.web.prefer_wait import preferred_wait, wait_for
from service.web.request import Request, large_body, transaction

__all__ = [
    "Accepted",
    "Answer",
    "Body",
    "Cursor",
    "Limit",
    "Outcome",
    "Page",
    "Pager",
    "Principal",
    "Request",
    "Submission",
    "Table",
    "accept",
    "accepts",
    "answers",
    "examples",
    "large_body",
    "once",
    "preferred_wait",
    "require",
    "transaction",
    "wait_for",
]
