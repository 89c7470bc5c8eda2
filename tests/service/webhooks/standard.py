"""A receiver's check of a call, written from the Standard Webhooks specification and from nothing of ours."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from tests.service.egress.scripted import Seen

TOLERANCE = 300  # seconds


def verified(seen: Seen, secret: str) -> dict[str, Any]:
    """The payload of a call whose signature is good. Raises AssertionError."""
    id, timestamp = seen.headers["webhook-id"], seen.headers["webhook-timestamp"]
    assert abs(time.time() - int(timestamp)) < TOLERANCE
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{id}.{timestamp}.".encode() + seen.body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    versions = [each.partition(",") for each in seen.headers["webhook-signature"].split(" ")]
    assert any(hmac.compare_digest(text, expected) for version, _, text in versions if version == "v1")
    payload: dict[str, Any] = json.loads(seen.body)
    assert payload["id"] == id
    return payload


def good(seen: Seen, secret: str) -> bool:
    """Whether a call's signature is good."""
    try:
        verified(seen, secret)
    except AssertionError:
        return False
    return True
