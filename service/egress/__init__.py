"""Calls to addresses that somebody else chose: checked when they are written down, and again when they are connected.

`Guard` decides where a connection may go, `Caller` makes an HTTP request through it within strict bounds.
"""

from service.egress.client import Answer, Caller, CallFailed
from service.egress.resolver import Guard
from service.egress.urls import AddressRefused, Target

__all__ = ["AddressRefused", "Answer", "CallFailed", "Caller", "Guard", "Target"]
