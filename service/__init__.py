"""Callboard: the service that app teams call for everything that must happen after the response."""
