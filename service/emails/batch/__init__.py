"""Many different mails in one call, each with an id or an error of its own."""
