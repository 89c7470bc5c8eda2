"""What became of a task, and the whole story of a request."""
