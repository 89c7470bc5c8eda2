"""The routes of the notifications slice."""

from service.notifications import group_api, notification_api, user_api

routers = [user_api.router, group_api.topics, group_api.organizations, notification_api.router]
