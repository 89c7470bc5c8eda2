"""Jobs: work that takes a while, asked for over HTTP, paid from a quota, looked at until it is done."""
