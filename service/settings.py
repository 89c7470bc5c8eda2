"""Every setting: its environment variable, default, unit and meaning. The only reader of the environment."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from callboard_workers.redis.signing import Signer
from service.environment import translate
from service.setting_parsers import (
    MadeUp,
    broker,
    count,
    flag,
    keys,
    mailbox,
    notifications,
    one_of,
    ports,
    seconds,
    secret,
    sender,
    text,
    url,
    words,
)

LogFormat = Literal["auto", "json", "pretty"]
SmtpTls = Literal["none", "starttls", "tls"]


class SettingsError(ValueError):
    """The environment is wrong; the message names every fault at once, `faults` has one text for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("The environment is wrong:\n" + "\n".join(f"  {fault}" for fault in faults))
        self.faults = faults


postgres_url = url("postgresql", "postgresql+asyncpg", "postgres")
redis_url = broker("redis", "rediss", "unix", "redis+socket", "sentinel")


def setting(
    *names: str,
    doc: str,
    default: Any = MISSING,
    factory: Callable[[], Any] | None = None,
    parse: Callable[[str], Any] = text,
    unit: str = "",
    shown: bool = True,
) -> Any:
    """Declare one setting: the environment names (the first is the name, the others aliases) and what it means."""
    metadata = {"names": names, "doc": doc, "parse": parse, "unit": unit, "shown": shown}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata, repr=shown)
    return field(default=default, metadata=metadata, repr=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with. Durations in seconds, sizes in bytes."""

    database_url: str = setting(
        "DATABASE_URL",
        doc="Postgres: where accepted work lives.",
        default="postgresql://localhost:5432/callboard",
        parse=postgres_url,
        shown=False,
    )
    redis_url: str = setting(
        "REDIS_URL",
        "CELERY_BROKER_URL",
        doc="Redis or Valkey: Celery's broker, which carries the doorbells.",
        default="redis://localhost:6379/0",
        parse=redis_url,
        shown=False,
    )
    result_backend: str = setting(
        "CELERY_RESULT_BACKEND", doc="Celery's result backend; empty for none.", default="", shown=False
    )
    redis_key_prefix: str = setting("REDIS_KEY_PREFIX", doc="A prefix of every key in Redis.", default="")
    db_pool_size: int = setting(
        "DB_POOL_SIZE", doc="Postgres connections of one process.", default=10, parse=count(1, 1000)
    )
    db_set_role: bool = setting(
        "DB_SET_ROLE",
        doc="Act as callboard_api in the API and as callboard_worker elsewhere; false where DATABASE_URL's user is that"
        " role.",
        default=True,
        parse=flag,
    )
    db_pooler: bool = setting(
        "DB_POOLER",
        doc="DATABASE_URL leads to PgBouncer in transaction mode, as callboard_api or callboard_worker.",
        default=False,
        parse=flag,
    )
    db_connect_timeout: float = setting(
        "DB_CONNECT_TIMEOUT",
        doc="To open a connection to Postgres, or to hear from a silent one.",
        default=1.0,
        parse=seconds(0.1, 60),
        unit="s",
    )
    db_pool_timeout: float = setting(
        "DB_POOL_TIMEOUT",
        doc="For a free connection of the API's pool, then 503.",
        default=0.8,
        parse=seconds(0.1, 60),
        unit="s",
    )
    db_statement_timeout: float = setting(
        "DB_STATEMENT_TIMEOUT",
        doc="For one statement of the API, then 503.",
        default=5.0,
        parse=seconds(0.1, 600),
        unit="s",
    )
    db_accept_timeout: float = setting(
        "DB_ACCEPT_TIMEOUT",
        doc="To look a key up, and to store what a request asks for, then 503: whether it is stored is then unknown.",
        default=2.0,
        parse=seconds(0.1, 600),
        unit="s",
    )
    smtp_host: str = setting("SMTP_HOST", doc="The mail server that takes the mail.", default="localhost")
    smtp_port: int = setting("SMTP_PORT", doc="Its port.", default=25, parse=count(1, 65535))
    smtp_username: str = setting("SMTP_USERNAME", doc="Empty for no authentication.", default="")
    smtp_password: str = setting("SMTP_PASSWORD", doc="The password to it.", default="", shown=False)
    smtp_tls: SmtpTls = setting(  # noqa: RUF009
        "SMTP_TLS",
        doc="none, starttls (required, never downgraded) or tls (from the first byte).",
        default="none",
        parse=one_of("none", "starttls", "tls"),
    )
    smtp_verify: bool = setting("SMTP_VERIFY", doc="Verify the mail server's certificate.", default=True, parse=flag)
    smtp_plaintext_auth: bool = setting(
        "SMTP_PLAINTEXT_AUTH", doc="Send the password over an unencrypted line.", default=False, parse=flag
    )
    smtp_pool_size: int = setting(
        "SMTP_POOL_SIZE", doc="Connections of one worker to the mail server.", default=20, parse=count(1, 1000)
    )
    email_memory: int = setting(
        "EMAIL_MEMORY", doc="Bytes a worker has for large emails.", default=1 << 28, parse=count(1 << 20, 1 << 40)
    )
    mail_from: str = setting(
        "MAIL_FROM", doc="The sender where a mail names none.", default="Callboard <callboard@localhost>", parse=sender
    )
    mail_send: bool = setting(
        "MAIL_SEND",
        "EMAIL_ENABLED",
        doc="Hand mail to the mail server; false accepts and renders but sends nothing.",
        default=True,
        parse=flag,
    )
    mail_verified: bool = setting(
        "MAIL_VERIFIED",
        doc="A sender that a mail names must be of a domain that its tenant has verified (/v1/senders); MAIL_DOMAINS is"
        " not asked then.",
        default=False,
        parse=flag,
    )
    mail_return_path: str = setting(
        "MAIL_RETURN_PATH",
        doc="Where bounces go, such as bounces@mail.example.org: each email's envelope has bounces+TAG@, by which a"
        " report is verified. Empty: to the sender.",
        default="",
        parse=mailbox,
    )
    smtp_notify: tuple[str, ...] = setting(
        "SMTP_NOTIFY",
        doc="Reports to ask for where the server offers DSN: FAILURE, DELAY, SUCCESS, by commas, or none.",
        default=("FAILURE",),
        parse=notifications,
    )
    dns_servers: tuple[str, ...] = setting(
        "DNS_SERVERS",
        doc="Name servers that are asked for the records of senders, as address or address:port, by commas; empty for"
        " the system's.",
        default=(),
        parse=words,
    )
    mail_domains: tuple[str, ...] = setting(
        "MAIL_DOMAINS",
        doc="Domains a mail may come from, beside MAIL_FROM's, by commas; * for any.",
        default=(),
        parse=words,
    )
    smtp_mailbox: bool = setting(
        "SMTP_MAILBOX",
        doc="The mail server is the development mailbox: mail of test keys is handed to it too; otherwise simulated.",
        default=False,
        parse=flag,
    )
    llm_base_url: str = setting(
        "LLM_BASE_URL",
        doc="An OpenAI-compatible endpoint, such as https://api.openai.com/v1; empty: activities are made offline.",
        default="",
        parse=url("http", "https"),
    )
    llm_api_key: str = setting("LLM_API_KEY", doc="The key to it.", default="", shown=False)
    llm_model: str = setting("LLM_MODEL", doc="The model to ask there.", default="gpt-4o-mini")
    llm_timeout: float = setting(
        "LLM_TIMEOUT", doc="For one whole answer of the model.", default=60.0, parse=seconds(0.1, 280), unit="s"
    )
    secret_key: str = setting(
        "SECRET_KEY",
        doc="Signs cursors and links; the same in every process. Without it each process makes its own.",
        factory=lambda: MadeUp(secrets.token_hex(32)),
        parse=secret,
        shown=False,
    )
    encryption_keys: tuple[str, ...] = setting(
        "ENCRYPTION_KEYS",
        doc="Seal the secrets that are stored, such as those of webhooks: by commas, the first seals, all open; empty"
        " for SECRET_KEY.",
        default=(),
        parse=keys,
        shown=False,
    )
    outbound_private: bool = setting(
        "OUTBOUND_PRIVATE",
        doc="Let webhooks call loopback, private networks and any port; for development only.",
        default=False,
        parse=flag,
    )
    outbound_ports: tuple[int, ...] = setting(
        "OUTBOUND_PORTS", doc="Ports that webhooks may call, by commas.", default=(80, 443, 8080, 8443), parse=ports
    )
    secret_keys_old: tuple[str, ...] = setting(
        "SECRET_KEYS_OLD",
        doc="Earlier SECRET_KEYs, the latest first, by commas: links that they signed stay good.",
        default=(),
        parse=keys,
        shown=False,
    )
    log_level: str = setting(
        "LOG_LEVEL",
        doc="DEBUG, INFO, WARNING or ERROR.",
        default="INFO",
        parse=one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    )
    log_format: LogFormat = setting(  # noqa: RUF009
        "LOG_FORMAT",
        doc="json, pretty, or auto: pretty on a terminal.",
        default="auto",
        parse=one_of("auto", "json", "pretty"),
    )
    api_host: str = setting("API_HOST", doc="The address the API listens on.", default="127.0.0.1")
    api_port: int = setting("API_PORT", doc="Its port.", default=8000, parse=count(1, 65535))
    api_processes: int = setting("API_PROCESSES", doc="Processes of the API.", default=1, parse=count(1, 128))
    public_url: str = setting(
        "PUBLIC_URL", doc="How the world reaches the API.", default="http://127.0.0.1:8000", parse=url("http", "https")
    )
    worker_concurrency: int = setting(
        "WORKER_CONCURRENCY", doc="Slots of one worker: attempts at a time.", default=500, parse=count(1, 100_000)
    )
    worker_lease: float = setting(
        "WORKER_LEASE",
        doc="A worker that is not heard of for so long is taken for dead, and its work goes to another.",
        default=30.0,
        parse=seconds(4, 3600),
        unit="s",
    )
    retention: float = setting(
        "RETENTION",
        doc="Tasks that ended so long ago are forgotten; what they were about (a mail, a job) stays.",
        default=30 * 86_400.0,
        parse=seconds(60, 3_660 * 86_400),
        unit="s",
    )
    record_retention: float = setting(
        "RECORD_RETENTION",
        doc="Mails and jobs of this age that wait for nothing are deleted with what they contain; 0 keeps them.",
        default=90 * 86_400.0,
        parse=seconds(0, 3_660 * 86_400),
        unit="s",
    )
    worker_grace: float = setting(
        "WORKER_GRACE",
        doc="After SIGTERM: how long running attempts may go on before they are cancelled and given back.",
        default=25.0,
        parse=seconds(0, 86_400),
        unit="s",
    )
    worker_fenced_timeout: float = setting(
        "WORKER_FENCED_TIMEOUT",
        doc="After SIGTERM: how long an email may wait for the server's reply to its final dot; then its outcome is"
        " unknown. Everything that has not passed that point is given back at once.",
        default=120.0,
        parse=seconds(0, 3_600),
        unit="s",
    )
    tracing: bool = setting(
        "TRACING",
        doc="Spans of OpenTelemetry for requests and messages; needs callboard[otel] and an SDK, see operations.",
        default=False,
        parse=flag,
    )
    worker_health_port: int = setting(
        "WORKER_HEALTH_PORT",
        doc="Where a worker answers /live, /ready and /metrics; 0 for nowhere.",
        default=0,
        parse=count(0, 65535),
    )
    worker_control_verbs: tuple[str, ...] = setting(
        "WORKER_CONTROL_VERBS",
        doc="Remote-control commands that workers obey, by commas, such as ping,hello,active,stats; * for all.",
        default=("*",),
        parse=words,
    )
    task_signing_keys: tuple[str, ...] = setting(
        "TASK_SIGNING_KEYS",
        doc="Sign direct messages with the first of these keys, by commas, and run only what one of them signed; empty:"
        " no signatures.",
        default=(),
        parse=keys,
        shown=False,
    )
    queues: tuple[str, ...] = setting(
        "QUEUES", doc="Queues a worker serves, by commas; empty for all that actors declare.", default=(), parse=words
    )
    idempotency_ttl: int = setting(
        "IDEMPOTENCY_TTL",
        doc="How long an Idempotency-Key is kept.",
        default=86_400,
        parse=count(60, 31_536_000),
        unit="s",
    )
    rate_limit_key: int = setting(
        "RATE_LIMIT_KEY",
        doc="Requests of one API key within RATE_LIMIT_WINDOW, then 429; 0 for no limit.",
        default=0,
        parse=count(0, 1_000_000_000),
    )
    rate_limit_tenant: int = setting(
        "RATE_LIMIT_TENANT",
        doc="Requests of one tenant's live keys, and of its test keys, within RATE_LIMIT_WINDOW, then 429; 0 for no"
        " limit.",
        default=0,
        parse=count(0, 1_000_000_000),
    )
    rate_limit_window: float = setting(
        "RATE_LIMIT_WINDOW",
        doc="Over how long the requests of a rate limit may be spread.",
        default=60.0,
        parse=seconds(1, 86_400),
        unit="s",
    )
    celery_tenant: str = setting(
        "CELERY_TENANT",
        doc="The tenant, by name, that Celery clients act for by the compatible task names; empty: the oldest.",
        default="",
    )
    stream_limit: int = setting(
        "STREAM_LIMIT",
        doc="Live streams of feeds that one API key may have open in one process of the API, then 429.",
        default=1000,
        parse=count(1, 1_000_000),
    )
    data: str = setting(
        "CALLBOARD_DATA",
        doc="The folder of `callboard up`, also for other commands; the free space of its disk is checked.",
        default="",
    )
    body_limit: int = setting(
        "BODY_LIMIT",
        doc="The largest request body, then 413. Routes without attachments and long lists take at most 1 MiB of it.",
        default=25 * 1024 * 1024,
        parse=count(1024, 1 << 30),
        unit="bytes",
    )

    @property
    def secret_key_is_made_up(self) -> bool:
        """Whether SECRET_KEY was not set, so that nothing made with it outlives this process."""
        return isinstance(self.secret_key, MadeUp)

    def signer(self) -> Signer | None:
        """What signs direct messages; None where TASK_SIGNING_KEYS is empty."""
        return Signer(self.task_signing_keys) if self.task_signing_keys else None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings from `environ`. Raises SettingsError, which names every fault."""
        values: dict[str, Any] = {}
        environ, faults = translate(environ)
        for item in fields(cls):
            found = next((name for name in item.metadata["names"] if environ.get(name, "").strip()), None)
            if found is None:
                continue
            try:
                values[item.name] = item.metadata["parse"](environ[found].strip())
            except ValueError as error:
                faults.append(f"{found}: {error}")
        if faults:
            raise SettingsError(faults)
        return cls(**values)
