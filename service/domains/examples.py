"""What the schema shows of `/v1/senders`."""

from typing import Any

RECORDS: list[dict[str, Any]] = [
    {
        "name": "_callboard.academy.example",
        "value": "callboard-verification=6f1c0e3a9d2b4c58a7e1f0b2c3d4e5f6",
        "purpose": "shows that the domain is yours",
        "type": "TXT",
        "found": None,
        "problem": None,
    },
    {
        "name": "cb1a2b3c4d._domainkey.academy.example",
        "value": "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A…",
        "purpose": "lets receivers check the signature of your mail (DKIM)",
        "type": "TXT",
        "found": None,
        "problem": None,
    },
]
REQUEST = {"domain": "academy.example"}
SENDER: dict[str, Any] = {
    "id": "sd_0199f6d6c3a1712fa0d5f1f0a9c1e7b4",
    "domain": "academy.example",
    "verified": False,
    "verified_at": None,
    "checked_at": None,
    "created_at": "2026-01-12T08:30:00.123Z",
    "records": RECORDS,
}
VERIFIED = {
    **SENDER,
    "verified": True,
    "verified_at": "2026-01-12T08:40:00.123Z",
    "checked_at": "2026-01-12T08:40:00.123Z",
    "records": [{**record, "found": True} for record in RECORDS],
}
LIST = {"items": [SENDER]}
