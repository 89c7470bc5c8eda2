"""The routes of the notifications slice."""

from service.feeds import api, stream_api
from service.notifications import api as notification_api
from service.notifications.timeline import story
from service.users import api as user_api
from service.users import memberships_api

__all__ = ["routers", "story"]

routers = [
    user_api.router,
    memberships_api.topics,
    memberships_api.organizations,
    notification_api.router,
    api.router,
    stream_api.router,
]
