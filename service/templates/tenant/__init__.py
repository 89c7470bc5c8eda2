"""Templates that tenants write: kept in numbered versions, compiled and filled in by processes that may be killed."""
