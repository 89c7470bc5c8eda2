"""The mail server that misbehaves on request; `callboard chaos` uses it too."""

from service.dev.chaos.sink import Mail, Rule, Session, Sink

__all__ = ["Mail", "Rule", "Session", "Sink"]
