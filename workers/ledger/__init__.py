"""Durable messages: rows in Postgres, and the verbs claim, fence, settle, renew, release, cancel, requeue, sweep."""

from workers.ledger.batcher import Batcher
from workers.ledger.claims import Claim
from workers.ledger.ledger import Ledger
from workers.ledger.operators import Canceling
from workers.ledger.states import State
from workers.ledger.sweeper import Swept

__all__ = ["Batcher", "Canceling", "Claim", "Ledger", "State", "Swept"]
