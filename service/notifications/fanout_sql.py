"""The one statement of a chunk: whom it reaches, what each of them gets, and the counts. Pure.

Everything is looked up by key, person by person (see PLANNING): the statement takes as long as there are people, and
not, where the statistics are old, as long as the square of that. Parameters are numbered in the order in which
`Parameters.add` is called, so each is sent once.
"""
# ruff: noqa: S608 (names come from the code, values are always parameters)

from typing import Any

import msgspec

from service.emails.insert_columns import COLUMNS as EMAIL_COLUMNS
from service.feeds.signals import FEW

CHUNK = 10_000
"""People of one transaction."""

PLANNING = (
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true), set_config('synchronous_commit', 'off', true)"
)
"""What is set for the transaction of a chunk before its statement is planned.

Its commit does not wait for the disk. Should Postgres crash, the last chunks are undone together with their marks, and
done again. Whatever comes of a chunk (a mail that is claimed, a feed that is numbered, the end of the message) is
itself committed to the disk, and with it all that was committed before.
"""


class Parameters:
    """The parameters of a statement, as `$n::type`."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any, kind: str) -> str:
        """Take a value; how the statement names it."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk needs to know of its notification; the fields are columns of the table."""

    id: Any
    tenant_id: Any
    mode: str
    category: str | None
    channels: list[str]
    critical: bool
    users: list[str]
    topics: list[str]
    organization_id: str | None
    exclude: list[str]
    dedup_key: str | None
    dedup_window: float | None
    after_no: int


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """The mail of a notification, once for all: the values of its row, and of its message in the ledger.

    `row` has a value for each of emails.rows.COLUMNS, `host` is the right side of the Message-IDs, `topic` what one may
    have unsubscribed from. `args` holds the mail's id as `stand_in`.
    """

    row: tuple[Any, ...]
    host: str
    topic: str | None
    actor: str
    queue: str
    priority: int
    args: str
    stand_in: str
    headers: str
    request_id: str | None
    max_crashes: int
    uncertain: str


def statement(
    target: Target, letter: Letter | None, size: int = CHUNK, *, again: bool = False
) -> tuple[str, list[Any]]:
    """Write the statement of the next chunk, at most `size` people, and its parameters.

    Without a `letter` no mail may be sent; `again`: some may have it already, which costs as much as the rest to look
    for. One row: `reached`, `last_no`, the counts, and `mails`, the ids to ring for.
    """
    use = Parameters()
    mine = {
        "id": use.add(target.id, "uuid"),
        "tenant": use.add(target.tenant_id, "uuid"),
        "mode": use.add(target.mode, "text"),
    }
    parts = [
        f"reached AS MATERIALIZED ({_reached(target, use, mine, size)})",
        *_judged(target, use, mine),
        *_due(target, use, mine),
        *_inbox(target, mine, again),
        *_email(target, use, mine, letter),
    ]
    return f"WITH {', '.join(parts)} {_answer(target, letter)}", use.values


def _reached(target: Target, use: Parameters, mine: dict[str, str], size: int) -> str:
    """The next people by number. Each route gives its own next ones, so together they hold the next of all."""
    after = use.add(target.after_no, "bigint")
    whose = f"f.tenant_id = {mine['tenant']} AND f.mode = {mine['mode']}"
    following = f"f.user_no > {after} ORDER BY f.user_no LIMIT {size}"
    routes = []
    if target.users:
        routes.append(
            f"SELECT f.no AS user_no FROM users f WHERE {whose}"
            f" AND f.id = ANY({use.add(target.users, 'text[]')}) AND f.no > {after}"
        )
    if len(target.topics) == 1:
        topic = use.add(target.topics[0], "text")
        routes.append(f"(SELECT f.user_no FROM followers f WHERE {whose} AND f.topic = {topic} AND {following})")
    elif target.topics:
        routes.append(
            f"SELECT g.user_no FROM unnest({use.add(target.topics, 'text[]')}) AS wanted(topic) CROSS JOIN LATERAL ("
            f"SELECT f.user_no FROM followers f WHERE {whose} AND f.topic = wanted.topic AND {following}) AS g"
        )
    if target.organization_id is not None:
        whole = use.add(target.organization_id, "text")
        routes.append(
            f"(SELECT f.user_no FROM members f WHERE {whose} AND f.organization_id = {whole} AND {following})"
        )
    alone = len(routes) == 1 and len(target.topics) < 2  # then nobody is reached twice
    routed = "1::bigint AS routes" if alone else "count(*) AS routes"
    return (
        f"SELECT user_no, {routed} FROM ({' UNION ALL '.join(routes)}) AS route"
        f"{'' if alone else ' GROUP BY user_no'} ORDER BY user_no LIMIT {size}"
    )


def _judged(target: Target, use: Parameters, mine: dict[str, str]) -> list[str]:
    """What each wants: the pace of each channel, and whether they are not to be told at all."""
    excluded = "false"
    if target.exclude:
        excluded = (
            f"r.user_no IN (SELECT no FROM users WHERE tenant_id = {mine['tenant']} AND mode = {mine['mode']}"
            f" AND id = ANY({use.add(target.exclude, 'text[]')}))"
        )
    usual = {channel: _literal("immediate" if channel in target.channels else None) for channel in CHANNELS}
    judged = f"SELECT r.user_no, r.routes, {excluded} AS excluded"
    content = f"{judged}, {usual['inbox']} AS inbox, {usual['email']} AS email FROM reached r"
    if target.critical:
        return [f"judged AS MATERIALIZED ({content})"]
    category = use.add(target.category or "*", "text")
    paces = {
        channel: f"coalesce(w.{channel}, 'immediate')" if channel in target.channels else "NULL::text"
        for channel in CHANNELS
    }
    asked = f"{judged}, {paces['inbox']}, {paces['email']} FROM reached r CROSS JOIN LATERAL ({_wishes(category)}) AS w"
    return [
        f"span AS MATERIALIZED ({SPAN})",
        f"wishing AS MATERIALIZED ({WISHING})",
        f"known AS MATERIALIZED ({KNOWN})",
        f"judged AS MATERIALIZED ({content} WHERE (SELECT whole FROM known) AND NOT {WISHES}"
        f" UNION ALL {asked} WHERE NOT (SELECT whole FROM known) OR {WISHES})",
    ]


CHANNELS = ("inbox", "email")
SPAN = "SELECT min(user_no) AS first_no, max(user_no) AS last_no, 2 * count(*) AS most FROM reached"
WISHING = (
    "SELECT p.user_no FROM preferences p WHERE p.user_no BETWEEN (SELECT first_no FROM span)"
    " AND (SELECT last_no FROM span) LIMIT (SELECT most FROM span)"
)
"""Who has any preference at all. Most have none: only who has one is looked up, unless there are too many to say."""
KNOWN = "SELECT count(*) < (SELECT most FROM span) AS whole FROM wishing"
WISHES = "(r.user_no IN (SELECT user_no FROM wishing))"


def _literal(word: str | None) -> str:
    return "NULL::text" if word is None else f"'{word}'::text"


def _wishes(category: str) -> str:
    """Each one's preference for this category, else the one for any."""
    chosen = ", ".join(
        f"coalesce(max(p.pace) FILTER (WHERE p.channel = '{channel}' AND p.category = {category}),"
        f" max(p.pace) FILTER (WHERE p.channel = '{channel}' AND p.category = '*')) AS {channel}"
        for channel in CHANNELS
    )
    return f"SELECT {chosen} FROM preferences p WHERE p.user_no = r.user_no AND p.category IN ({category}, '*')"


def _due(target: Target, use: Parameters, mine: dict[str, str]) -> list[str]:
    """Who is to get something: neither excluded nor told under this key within its window."""
    if target.dedup_key is None:
        return ["due AS NOT MATERIALIZED (SELECT user_no, inbox, email FROM judged WHERE NOT excluded)"]
    until = "'infinity'::timestamptz"
    if target.dedup_window is not None:
        until = f"clock_timestamp() + make_interval(secs => {use.add(target.dedup_window, 'double precision')})"
    key = use.add(target.dedup_key, "text")
    keyed = (
        "INSERT INTO notification_keys (user_no, dedup_key, tenant_id, until, notification_id)"
        f" SELECT user_no, {key}, {mine['tenant']}, {until}, {mine['id']} FROM judged WHERE NOT excluded"
        " AND (inbox <> 'off' OR email <> 'off') ORDER BY user_no"
        " ON CONFLICT (user_no, dedup_key) DO UPDATE SET until = excluded.until,"
        " notification_id = excluded.notification_id WHERE notification_keys.until <= statement_timestamp()"
        " RETURNING user_no"
    )
    silent = "NOT excluded AND coalesce(inbox, 'off') = 'off' AND coalesce(email, 'off') = 'off'"
    return [
        f"keyed AS ({keyed})",
        # not a join: the planner does not know how many they are, and would compare each with each
        "due AS (SELECT user_no, inbox, email FROM judged WHERE (user_no IN (SELECT user_no FROM keyed)) IS TRUE"
        f" UNION ALL SELECT user_no, inbox, email FROM judged WHERE {silent})",
    ]


def _inbox(target: Target, mine: dict[str, str], again: bool) -> list[str]:
    if "inbox" not in target.channels:
        return []
    return [
        "inboxed AS (INSERT INTO deliveries (notification_id, user_no, channel, tenant_id)"
        f" SELECT {mine['id']}, user_no, 'inbox', {mine['tenant']} FROM due WHERE inbox = 'immediate'"
        f"{' ON CONFLICT DO NOTHING' if again else ''} RETURNING user_no)"
    ]


def _email(target: Target, use: Parameters, mine: dict[str, str], letter: Letter | None) -> list[str]:
    """Mails, their messages and their deliveries; and what is collected for digests."""
    if "email" not in target.channels or letter is None:
        return []
    topic = use.add(letter.topic, "text")
    addressed = (
        "SELECT d.user_no, d.email AS pace, u.email, u.address, u.locale, u.timezone,"
        f" emails_suppressed({mine['tenant']}, {mine['mode']}, u.address, {topic}) AS suppressed"
        " FROM due d JOIN users u ON u.no = d.user_no WHERE d.email <> 'off'"
    )
    return [
        f"addressed AS MATERIALIZED ({addressed})",
        "moment AS MATERIALIZED (SELECT date_trunc('milliseconds', clock_timestamp()) AS at)",
        "posted AS MATERIALIZED (SELECT uuid_at(moment.at) AS id, moment.at, user_no, email, address, locale"
        " FROM addressed CROSS JOIN moment WHERE pace = 'immediate' AND address IS NOT NULL AND NOT suppressed)",
        f"mailed AS ({_mails(use, letter)})",
        f"queued AS ({_messages(use, mine, letter)})",
        "delivered AS (INSERT INTO deliveries (notification_id, user_no, channel, tenant_id, email_id)"
        f" SELECT {mine['id']}, user_no, 'email', {mine['tenant']}, id FROM posted RETURNING email_id)",
        "collected AS (INSERT INTO deliveries (notification_id, user_no, channel, tenant_id, pace)"
        f" SELECT {mine['id']}, user_no, 'email', {mine['tenant']}, pace FROM addressed"
        " WHERE pace IN ('hourly', 'daily') AND address IS NOT NULL ON CONFLICT DO NOTHING RETURNING 1)",
        "opened AS (INSERT INTO digests (user_no, pace, due_at, tenant_id, mode)"
        f" SELECT user_no, pace, digest_due(pace, timezone), {mine['tenant']}, {mine['mode']} FROM addressed"
        " WHERE pace IN ('hourly', 'daily') AND address IS NOT NULL ORDER BY user_no"
        " ON CONFLICT (user_no, pace) WHERE closed_at IS NULL DO UPDATE SET items = digests.items + 1)",
    ]


def _mails(use: Parameters, letter: Letter) -> str:
    own = {
        "id": "p.id",
        "message_id": f"'<' || p.id::text || '@' || {use.add(letter.host, 'text')} || '>'",
        "to_": "ARRAY[p.email]",
        "recipients": "ARRAY[p.address]",
        "created_at": "p.at",
        "updated_at": "p.at",
    }
    values = []
    for (name, kind), value in zip(EMAIL_COLUMNS, letter.row, strict=True):
        if name == "template_locale":
            of_template = letter.row[[column for column, _ in EMAIL_COLUMNS].index("template_key")] is not None
            own[name] = f"coalesce(p.locale, {use.add(value, 'text')})" if of_template else "NULL"
        encoded = msgspec.json.encode(value).decode() if kind == "jsonb" and value is not None else value
        values.append(own[name] if name in own else use.add(encoded, kind))
    names = ", ".join(name for name, _ in EMAIL_COLUMNS)
    return f"INSERT INTO emails ({names}) SELECT {', '.join(values)} FROM posted p"


def _messages(use: Parameters, mine: dict[str, str], letter: Letter) -> str:
    return (
        "INSERT INTO messages (id, tenant_id, actor, queue, priority, args, headers, request_id, max_crashes,"
        " uncertain_policy, due_at, ring_at, rings)"
        f" SELECT p.id, {mine['tenant']}, {use.add(letter.actor, 'text')}, {use.add(letter.queue, 'text')},"
        f" {use.add(letter.priority, 'smallint')},"
        f" replace({use.add(letter.args, 'text')}, {use.add(letter.stand_in, 'text')}, p.id::text)::jsonb,"
        f" {use.add(letter.headers, 'text')}::jsonb, {use.add(letter.request_id, 'text')},"
        f" {use.add(letter.max_crashes, 'smallint')}, {use.add(letter.uncertain, 'text')},"
        " clock_timestamp(), clock_timestamp() + interval '5 s', 1 FROM posted p"
    )


def _answer(target: Target, letter: Letter | None) -> str:
    """One row, for which each list of people is gone through once."""
    judged = [
        "count(*) AS reached",
        "max(user_no) AS last_no",
        "min(user_no) AS first_no",
        "coalesce(sum(routes - 1), 0)::bigint AS overlapping",
        "count(*) FILTER (WHERE excluded) AS excluded",
    ]
    due, parts, more = ["count(*) AS due"], [], []
    if "inbox" in target.channels:
        due.append("count(*) FILTER (WHERE inbox = 'off') AS inbox_muted")
        parts.append("SELECT count(*) AS inbox_delivered FROM inboxed")
        more.append(f"ARRAY(SELECT user_no FROM inboxed LIMIT {FEW + 1}) AS inbox_users")
    if "email" in target.channels:
        due.append("count(*) FILTER (WHERE email = 'off') AS email_muted")
        if letter is None:
            due.append("count(*) FILTER (WHERE email <> 'off') AS email_disabled")
        else:
            parts += [
                "SELECT count(*) AS email_queued, coalesce(array_agg(email_id), '{}') AS mails FROM delivered",
                "SELECT count(*) AS email_collected FROM collected",
                "SELECT count(*) FILTER (WHERE address IS NULL) AS email_unreachable, count(*) FILTER"
                " (WHERE suppressed AND address IS NOT NULL AND pace = 'immediate') AS email_suppressed FROM addressed",
            ]
    parts = [f"SELECT {', '.join(judged)} FROM judged", f"SELECT {', '.join(due)} FROM due", *parts]
    tables = " CROSS JOIN ".join(f"({part}) AS part{number}" for number, part in enumerate(parts))
    return f"SELECT {', '.join(['*', *more])} FROM {tables}"
