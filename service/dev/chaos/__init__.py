"""`callboard chaos`: break everything at random while mail flows, then count what was lost and what was sent twice."""
