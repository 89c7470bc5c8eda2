"""The Redis keys of our consumer: our own names, so that a stock worker's restore never touches what we run."""

from __future__ import annotations

from dataclasses import dataclass

from callboard_workers.redis.protocol import SEPARATOR, list_keys, sorted_key


@dataclass(frozen=True)
class Keys:
    """Names under one prefix (Celery's `global_keyprefix`)."""

    prefix: str = ""

    @property
    def owners(self) -> str:
        """Sorted set: which worker processes hold messages, and until when (ms, Redis' clock)."""
        return f"{self.prefix}workers:owners"

    @property
    def heartbeats(self) -> str:
        """Hash: what each worker process last reported of itself; by `node#process`: time (ms), newline, JSON."""
        return f"{self.prefix}workers:heartbeats"

    @property
    def delayed(self) -> str:
        """Sorted set: messages that are not due yet, by when they are (ms, Redis' clock)."""
        return f"{self.prefix}workers:delayed"

    @property
    def dead(self) -> str:
        """List: direct messages nobody can or may run, newest first, each with its reason."""
        return f"{self.prefix}workers:dead"

    @property
    def sorted(self) -> str:
        """Hash: by list, how many of its doorbells were moved to lists of their tenants."""
        return sorted_key(self.prefix)

    @property
    def turns(self) -> str:
        """What comes before a list's key where its tenants take turns: a list of them, and with `:tenant` theirs."""
        return f"{self.prefix}workers:turns:"

    @property
    def forged(self) -> str:
        """List: messages that no key of ours signed, apart from `dead`, so that forging pushes none of those out."""
        return f"{self.prefix}workers:forged"

    def unacked(self, owner: str) -> str:
        """Hash: what an owner holds; by tag: list key, newline, envelope."""
        return f"{self.prefix}workers:unacked:{owner}"

    def taken(self, owner: str) -> str:
        """String: set when an owner was taken for dead and its messages went to others."""
        return f"{self.prefix}workers:taken:{owner}"

    def lists(self, queue: str) -> tuple[str, ...]:
        """The lists of a queue, the one served first coming first."""
        return list_keys(queue, self.prefix)

    def queue_of(self, key: str) -> str:
        """The queue that a list belongs to, by the list's key: without the prefix and the priority."""
        return key.removeprefix(self.prefix).partition(SEPARATOR)[0]
