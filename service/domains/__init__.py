"""Domains that a tenant may send from, each with the key that signs its mail (DKIM, RFC 6376)."""
