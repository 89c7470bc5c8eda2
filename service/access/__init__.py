"""Who may call: tenants, their API keys and scopes."""
