"""The routes of the notifications slice."""

from service.notifications import feed_api, group_api, notification_api, stream_api, user_api
from service.notifications.story import story

__all__ = ["routers", "story"]

routers = [
    user_api.router,
    group_api.topics,
    group_api.organizations,
    notification_api.router,
    feed_api.router,
    stream_api.router,
]
