"""The routes of the activities slice: those by which team-activity clients knew the service before."""

from service.activities.compatibility import router

routers = [router]
