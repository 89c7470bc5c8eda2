"""Durable messages: rows in Postgres, and the verbs claim, fence, settle, renew, release, cancel, requeue, sweep."""

from callboard_workers.common.batcher import Batcher
from callboard_workers.ledger.claims import Claim
from callboard_workers.ledger.ledger import Ledger
from callboard_workers.ledger.operations import Canceling
from callboard_workers.ledger.states import State
from callboard_workers.ledger.sweeper import Swept

__all__ = ["Batcher", "Canceling", "Claim", "Ledger", "State", "Swept"]
