"""Mail servers of a tenant's own."""
