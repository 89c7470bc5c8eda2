"""One template to many: a list, a file of rows, or the followers of a topic; throttled, paused, resumed, canceled."""
