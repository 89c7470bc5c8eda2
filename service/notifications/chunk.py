"""The one statement of a chunk: whom it reaches, what each of them gets, and the counts. Pure.

Everything is looked up by key, person by person (see PLANNING): the statement takes as long as there are people, and
not, where the statistics are old, as long as the square of that. Parameters are numbered in the order in which
`Parameters.add` is called, so each is sent once.
"""
# ruff: noqa: S608 (names come from the code, values are always parameters)

from typing import Any

import msgspec

from service.emails.rows import COLUMNS as EMAIL_COLUMNS

CHUNK = 10_000
"""People of one transaction."""

FEW = 100
"""People whom a wake-up names one by one."""


PLANNING = (
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true)"
)
"""What is set for the transaction of a chunk before its statement is planned."""


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


def statement(target: Target, letter: Letter | None, size: int = CHUNK) -> tuple[str, list[Any]]:
    """Write the statement of the next chunk, at most `size` people, and its parameters.

    Without a `letter` no mail may be sent. One row: `reached`, `last_no`, the counts, and `mails`, the ids to ring for.
    """
    use = Parameters()
    mine = {
        "id": use.add(target.id, "uuid"),
        "tenant": use.add(target.tenant_id, "uuid"),
        "mode": use.add(target.mode, "text"),
    }
    parts = [
        f"reached AS MATERIALIZED ({_reached(target, use, mine, size)})",
        f"judged AS MATERIALIZED ({_judged(target, use, mine)})",
        *_due(target, use, mine),
        *_inbox(target, mine),
        *_email(target, use, mine, letter),
    ]
    return f"WITH {', '.join(parts)} {_answer(target, letter)}", use.values


def _reached(target: Target, use: Parameters, mine: dict[str, str], size: int) -> str:
    """The next people by number. Each route gives its own next ones, so together they hold the next of all."""
    after = use.add(target.after_no, "bigint")
    following = f"f.user_no > {after} ORDER BY f.user_no LIMIT {size}"
    routes = []
    if target.users:
        routes.append(
            f"SELECT u.no AS user_no FROM users u WHERE u.tenant_id = {mine['tenant']} AND u.mode = {mine['mode']}"
            f" AND u.id = ANY({use.add(target.users, 'text[]')}) AND u.no > {after}"
        )
    if target.topics:
        routes.append(_group("followers", "topic", use.add(target.topics, "text[]"), mine, following))
    if target.organization_id is not None:
        whole = use.add([target.organization_id], "text[]")
        routes.append(_group("members", "organization_id", whole, mine, following))
    return (
        f"SELECT user_no, count(*) AS routes FROM ({' UNION ALL '.join(routes)}) AS route"
        f" GROUP BY user_no ORDER BY user_no LIMIT {size}"
    )


def _group(table: str, key: str, keys: str, mine: dict[str, str], following: str) -> str:
    return (
        f"SELECT g.user_no FROM unnest({keys}) AS wanted(key) CROSS JOIN LATERAL (SELECT f.user_no FROM {table} f"
        f" WHERE f.tenant_id = {mine['tenant']} AND f.mode = {mine['mode']} AND f.{key} = wanted.key"
        f" AND {following}) AS g"
    )


def _judged(target: Target, use: Parameters, mine: dict[str, str]) -> str:
    """What each wants: the pace of each channel, and whether they are not to be told at all."""
    excluded = "false"
    if target.exclude:
        excluded = (
            f"r.user_no IN (SELECT no FROM users WHERE tenant_id = {mine['tenant']} AND mode = {mine['mode']}"
            f" AND id = ANY({use.add(target.exclude, 'text[]')}))"
        )
    if target.critical:
        paces = {channel: f"{_literal('immediate' if channel in target.channels else None)}" for channel in CHANNELS}
        wishes = ""
    else:
        category = use.add(target.category or "*", "text")
        paces = {
            channel: f"coalesce(w.{channel}, 'immediate')" if channel in target.channels else "NULL::text"
            for channel in CHANNELS
        }
        wishes = f" CROSS JOIN LATERAL ({_wishes(category)}) AS w"
    return (
        f"SELECT r.user_no, r.routes, {excluded} AS excluded, {paces['inbox']} AS inbox, {paces['email']} AS email"
        f" FROM reached r{wishes}"
    )


CHANNELS = ("inbox", "email")


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
        return ["due AS (SELECT user_no, inbox, email FROM judged WHERE NOT excluded)"]
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


def _inbox(target: Target, mine: dict[str, str]) -> list[str]:
    if "inbox" not in target.channels:
        return []
    return [
        "inboxed AS (INSERT INTO deliveries (notification_id, user_no, channel, tenant_id)"
        f" SELECT {mine['id']}, user_no, 'inbox', {mine['tenant']} FROM due WHERE inbox = 'immediate'"
        " ON CONFLICT DO NOTHING RETURNING user_no)"
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
    counts = {
        "reached": "(SELECT count(*) FROM reached)",
        "last_no": "(SELECT max(user_no) FROM reached)",
        "first_no": "(SELECT min(user_no) FROM reached)",
        "overlapping": "coalesce((SELECT sum(routes - 1) FROM reached), 0)::bigint",
        "excluded": "(SELECT count(*) FROM judged WHERE excluded)",
        "due": "(SELECT count(*) FROM due)",
    }
    if "inbox" in target.channels:
        counts["inbox_delivered"] = "(SELECT count(*) FROM inboxed)"
        counts["inbox_users"] = f"ARRAY(SELECT user_no FROM inboxed LIMIT {FEW + 1})"
        counts["inbox_muted"] = "(SELECT count(*) FROM due WHERE inbox = 'off')"
    if "email" in target.channels:
        counts["email_muted"] = "(SELECT count(*) FROM due WHERE email = 'off')"
        if letter is None:
            counts["email_disabled"] = "(SELECT count(*) FROM due WHERE email <> 'off')"
        else:
            counts["email_queued"] = "(SELECT count(*) FROM delivered)"
            counts["email_collected"] = "(SELECT count(*) FROM collected)"
            counts["email_unreachable"] = "(SELECT count(*) FROM addressed WHERE address IS NULL)"
            counts["email_suppressed"] = (
                "(SELECT count(*) FROM addressed WHERE suppressed AND address IS NOT NULL AND pace = 'immediate')"
            )
            counts["mails"] = "ARRAY(SELECT email_id FROM delivered)"
    return "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in counts.items())
