"""Keeps mails in one SQLite file, the newest ones only."""

import os
import sqlite3
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from service.dev.mailbox.mail import Address, Summary, summarise
from service.dev.mailbox.query import conditions
from service.dev.mailbox.sink import Received

KEPT = 10_000  # mails
KEPT_BYTES = 1024**3
# the sources apart, so that listing and searching never read through attachments
SCHEMA = """
CREATE TABLE IF NOT EXISTS mails (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, read INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL, attachments INTEGER NOT NULL, summary TEXT NOT NULL,
    sender TEXT NOT NULL, recipient TEXT NOT NULL, cc TEXT NOT NULL, bcc TEXT NOT NULL, reply_to TEXT NOT NULL,
    subject TEXT NOT NULL, message_id TEXT NOT NULL, search TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sources (
    number INTEGER PRIMARY KEY, sender TEXT NOT NULL, recipients TEXT NOT NULL, at TEXT NOT NULL, raw BLOB NOT NULL
);
CREATE TRIGGER IF NOT EXISTS forget AFTER DELETE ON mails BEGIN DELETE FROM sources WHERE number = old.number; END;
CREATE INDEX IF NOT EXISTS unread ON mails (read) WHERE read = 0;
"""
COLUMNS = "id,size,attachments,summary,sender,recipient,cc,bcc,reply_to,subject,message_id,search"
INSERT = f"INSERT INTO mails ({COLUMNS}) VALUES ({','.join('?' * len(COLUMNS.split(',')))})"  # noqa: S608

SOURCE = """
SELECT m.id, s.sender, s.recipients, s.raw, s.at FROM mails m JOIN sources s USING (number)
WHERE m.id = :id OR (:id = 'latest' AND m.number = (SELECT max(number) FROM mails))
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A page of mails, newest first; ``matching`` and ``unread`` count all that match, ``all_*`` the whole mailbox."""

    mails: list[Summary]
    matching: int
    unread: int
    all_mails: int
    all_unread: int


class Store:
    """Safe to call from any thread; every call takes milliseconds and blocks, so call it off the loop.

    ``file`` may be None: then it forgets everything at the end.
    """

    def __init__(self, file: Path | None, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        self.kept = kept
        self.kept_bytes = kept_bytes
        self.lock = threading.Lock()
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))  # mails hold links that let people in
        self.db = sqlite3.connect(file or ":memory:", check_same_thread=False, isolation_level=None)
        # survives the death of the process; a power cut may cost the last mails, of a development mailbox
        self.db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {SCHEMA}")
        self.bytes: int = self._one("SELECT coalesce(sum(size), 0) FROM mails")

    def close(self) -> None:
        with self.lock:
            self.db.close()

    def add(self, received: Received) -> Summary:
        """Keeps a mail."""
        id = uuid.uuid4().hex
        summary, search = summarise(id, received)
        recipients = "\n".join(received.recipients)
        with self.lock, self.db:
            self.db.execute("BEGIN")
            number = self.db.execute(INSERT, row(summary, search)).lastrowid
            self.db.execute(
                "INSERT INTO sources VALUES (?,?,?,?,?)",
                (number, received.sender, recipients, received.at.isoformat(), received.raw),
            )
            self.bytes += summary.size
            self._trim(number or 0)
        return summary

    def find(self, query: str = "", start: int = 0, limit: int = 50) -> Found:
        """Those that match, see ``query.py``; all for an empty query."""
        where, parameters = self._where(query)
        with self.lock:
            rows = self.db.execute(
                f"SELECT summary, read FROM mails WHERE {where} ORDER BY number DESC LIMIT ? OFFSET ?",  # noqa: S608
                (*parameters, limit, start),
            ).fetchall()
            matching, unread = self.db.execute(
                f"SELECT count(*), coalesce(sum(read = 0), 0) FROM mails WHERE {where}",  # noqa: S608
                parameters,
            ).fetchone()
            everything = self.db.execute("SELECT count(*), coalesce(sum(read = 0), 0) FROM mails").fetchone()
        mails = [
            msgspec.structs.replace(msgspec.json.decode(text, type=Summary), read=bool(read)) for text, read in rows
        ]
        return Found(mails, matching, unread, *everything)

    def source(self, id: str) -> tuple[str, Received] | None:
        """The id and the mail as it came; ``latest`` for the newest; None when there is none."""
        with self.lock:
            found = self.db.execute(SOURCE, {"id": id}).fetchone()
        if found is None:
            return None
        id, sender, recipients, raw, at = found
        return id, Received(sender, tuple(recipients.split("\n")), raw, datetime.fromisoformat(at))

    def mark(self, read: bool, ids: Sequence[str] = (), query: str = "") -> None:
        """Marks these, or those that match, or all."""
        where, parameters = self._which(ids, query)
        self._change(f"UPDATE mails SET read = {int(read)} WHERE {where}", parameters)  # noqa: S608

    def delete(self, ids: Sequence[str] = (), query: str = "") -> None:
        """Deletes these, or those that match, or all."""
        where, parameters = self._which(ids, query)
        self._change(f"DELETE FROM mails WHERE {where}", parameters)  # noqa: S608
        self.bytes = self._one("SELECT coalesce(sum(size), 0) FROM mails")

    def _change(self, statement: str, parameters: Sequence[str]) -> None:
        with self.lock:
            self.db.execute(statement, parameters)

    def _one(self, statement: str) -> int:
        with self.lock:
            return int(self.db.execute(statement).fetchone()[0])

    def _which(self, ids: Sequence[str], query: str) -> tuple[str, Sequence[str]]:
        if not ids:
            return self._where(query)
        return f"id IN ({','.join('?' * len(ids))})", ids

    def _where(self, query: str) -> tuple[str, tuple[str, ...]]:
        found = conditions(query)
        text = " AND ".join(one.sql for one in found) or "true"
        return text, tuple(value for one in found for value in one.parameters)

    def _trim(self, newest: int) -> None:
        """Forgets the oldest while there are too many mails or bytes. Within the lock and the transaction."""
        surplus = self.db.execute("DELETE FROM mails WHERE number <= ? RETURNING size", (newest - self.kept,))
        self.bytes -= sum(size for (size,) in surplus.fetchall())
        while self.bytes > self.kept_bytes:
            oldest, size = self.db.execute("SELECT number, size FROM mails ORDER BY number LIMIT 1").fetchone()
            if oldest == newest:
                return
            self.db.execute("DELETE FROM mails WHERE number = ?", (oldest,))
            self.bytes -= size


def row(summary: Summary, search: str) -> tuple[str | int, ...]:
    sender = [summary.sender] if summary.sender else []
    people = (sender, summary.to, summary.cc, summary.bcc, summary.reply_to)
    written = msgspec.json.encode(summary).decode()
    texts = (summary.subject.casefold(), summary.message_id.casefold(), search)
    return (summary.id, summary.size, summary.attachments, written, *map(names, people), *texts)


def names(addresses: list[Address]) -> str:
    return " ".join(f"{one.name} {one.address}" for one in addresses).casefold()
