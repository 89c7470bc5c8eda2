"""The TCP proxy that breaks connections on request; `callboard chaos` uses it too."""

from service.dev.chaos.proxy import Proxy

__all__ = ["Proxy"]
