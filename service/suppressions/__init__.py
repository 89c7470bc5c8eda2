"""Addresses that get no mail, or none of a category."""
