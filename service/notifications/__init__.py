"""Notifications: whom they reach, that each person gets one, and how they see them: feed, mail, digest, live."""
