"""What the schema shows of `POST /v1/inbound/bounces`."""

from service.emails.examples import ID

REQUEST = {
    "event": "bounced",
    "email_id": ID,
    "recipient": "ada@example.org",
    "status": "5.1.1",
    "diagnostic": "550 5.1.1 no such user",
    "event_id": "evt_81",
}
ANSWER = {
    "items": [
        {
            "event": "bounced",
            "outcome": "recorded",
            "email_id": ID,
            "recipient": "ada@example.org",
            "suppressed": True,
        }
    ]
}
