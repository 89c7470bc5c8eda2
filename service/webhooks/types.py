"""The types of events that an endpoint may subscribe to. Pure."""

EVERYTHING = "*"
TEST = "webhook.test"
"""Sent by `POST …/test` alone, to that endpoint, whatever it subscribed to."""

TYPES: dict[str, str] = {
    "email.sent": "the mail server has taken the mail",
    "email.delivered": "the receiver's own server has said that it has the mail",
    "email.bounced": "the mail came back",
    "email.complained": "the receiver called it spam",
    "email.failed": "the mail was given up; `data.error` says why",
    "email.suppressed": "the receiver is not to be mailed",
    "email.uncertain": "the connection broke after the final dot: nobody can know; decide what to do",
    "email.canceled": "the mail was canceled before it was sent",
    "email.expired": "the mail was not sent before it expired",
    "job.completed": "the job is done; `data.result` holds what came of it",
    "job.failed": "the job was given up; `data.error` says why",
    "job.canceled": "the job was canceled",
    "job.expired": "no worker took the job up in time",
    "bulk.completed": "every mail of the bulk has come to its end (a mail in doubt counts as ended, also where it will"
    " be sent again); `data.counts` says to which",
    "bulk.canceled": "the bulk was canceled before it had ended; what was under way at that moment tells its own end",
    "bulk.failed": "its mails could not all be written: `data.error` says why, `data.unwritten` how many are left",
    "notification.completed": "the notification has reached everybody it was for; `data.counts` says how many",
    "notification.failed": "not everybody could be reached: `data.error` says why, `data.counts` how far it came",
    "notification.canceled": "the notification was canceled before it had reached everybody",
}
