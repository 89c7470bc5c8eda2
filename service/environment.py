"""The environment of a command: the process's own variables, then those of a `.env` file; and earlier systems' names.

Precedence: a variable of the environment, then one of the file, then the setting's default. The file is `.env` in the
working directory where there is one, or the one that `ENV_FILE` or `--env-file` names; an empty `ENV_FILE` names none.
"""

from collections.abc import Mapping, MutableMapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from dotenv.parser import parse_stream

from service.local_stack import is_mail, running

DEFAULT_FILE = ".env"
FORMER = {
    "SMTP_HOST": ("EMAIL_SMTP_HOST", "EMAIL_HOST"),
    "SMTP_PORT": ("EMAIL_SMTP_PORT", "EMAIL_PORT"),
    "SMTP_USERNAME": ("SMTP_USER", "EMAIL_SMTP_USER", "EMAIL_HOST_USER"),
    "SMTP_PASSWORD": ("EMAIL_SMTP_PASSWORD", "EMAIL_HOST_PASSWORD"),
}
"""Our name of a setting, and the names that it had in the systems that Callboard replaces."""
FORMER_TLS = ("SMTP_USE_TLS", "EMAIL_SMTP_USE_TLS", "EMAIL_USE_TLS")
FORMER_SENDER = ("EMAIL_FROM_ADDRESS", "SMTP_FROM_EMAIL", "SMTP_MAIL_FROM")
FORMER_SENDER_NAME = ("EMAIL_FROM_NAME", "SMTP_FROM_NAME")
IMPLICIT_TLS_PORT = "465"
PUBLIC = ("development-only", "CHANGE-ME")
"""Passwords of compose.yaml and of the example for systemd."""
SECRETS = (
    *("SECRET_KEY", "SECRET_KEYS_OLD", "ENCRYPTION_KEYS", "TASK_SIGNING_KEYS", "FLOWER_BASIC_AUTH"),
    *("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "SMTP_PASSWORD"),
)
SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class EnvFileError(ValueError):
    """The file of the environment cannot be read; the message says why."""


def read(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the variables of the `.env` file that it does not set itself.

    Raises EnvFileError for a named file that is not there, and for lines that are
    no assignments.
    """
    found = dict(environ)
    named = found.get("ENV_FILE")
    path = Path(DEFAULT_FILE if named is None else named)
    if named == "" or (named is None and not path.is_file()):
        return found
    return _values(path) | found


def adopt(environ: MutableMapping[str, str], file: Path | str | None) -> None:
    """Set the variables of `file` (empty: none; None: ENV_FILE or `.env`) in `environ`, for child processes, too."""
    if file is not None:
        environ["ENV_FILE"] = str(file)
    environ.update(read(environ))


def with_servers(environ: Mapping[str, str], data: Path, *, secret: bool = False) -> dict[str, str]:
    """Add the servers of the `callboard up` that runs in `data`, unless the environment sets DATABASE_URL.

    Its mail server gives way to one that the environment names. `secret`: with its SECRET_KEY.
    """
    found = dict(environ)
    if "DATABASE_URL" in found:
        return found
    mail_is_named = "SMTP_HOST" in translate(found)[0]
    servers = running(data, secret=secret)
    return found | {name: value for name, value in servers.items() if not (mail_is_named and is_mail(name))}


def translate(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the environment with our names for settings that carry an earlier system's, and what is wrong with these.

    A setting that has a value under our name keeps it. `public_defaults` are named among the faults.
    """
    found = {name: value for name, value in environ.items() if value.strip()}
    faults: list[str] = []
    for ours, former in FORMER.items():
        if ours not in found and (value := _first(found, former)):
            found[ours] = value
    switch = next((name for name in FORMER_TLS if name in found), None)
    if switch and "SMTP_TLS" not in found:
        chosen = SWITCHES.get(found[switch].strip().lower())
        if chosen is None:
            faults.append(f"{switch}: true or false is expected; SMTP_TLS takes none, starttls or tls")
        else:
            encrypted = "tls" if found.get("SMTP_PORT") == IMPLICIT_TLS_PORT else "starttls"
            found["SMTP_TLS"] = encrypted if chosen else "none"
    if "MAIL_FROM" not in found:
        address, name = _first(found, FORMER_SENDER), _first(found, FORMER_SENDER_NAME)
        if address:
            quoted = (name or "").replace("\\", "\\\\").replace('"', '\\"')
            found["MAIL_FROM"] = f'"{quoted}" <{address}>' if name and "<" not in address else address
        elif name:
            given = next(each for each in FORMER_SENDER_NAME if each in found)
            faults.append(f"{given}: a sender's address is missing: set MAIL_FROM to Name <address>")
    return found, faults + public_defaults(found)


def public_defaults(environ: Mapping[str, str]) -> list[str]:
    """Name the secrets that hold a value which everybody can read in our examples, unless only this machine is served.

    PUBLIC_URL says whether: containers listen on every address of theirs, so API_HOST does not.
    """
    host = urlsplit(environ.get("PUBLIC_URL", "").strip() or "http://localhost").hostname or ""
    if host == "localhost" or host.endswith(".localhost") or _is_loopback(host):
        return []
    return [
        f"{name}: holds a value of our examples, and PUBLIC_URL is not this machine's: set your own"
        for name in SECRETS
        if any(public in environ.get(name, "") for public in PUBLIC)
    ]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _first(found: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((found[name].strip() for name in names if name in found), None)


def _values(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EnvFileError(f"{path} cannot be read: {said}. Name another file in ENV_FILE.") from None
    wrong = [str(each.original.line) for each in bindings if each.error]
    if wrong:
        raise EnvFileError(f"{path}, line {', '.join(wrong)}: NAME=value is expected.")
    return {each.key: each.value for each in bindings if each.key and each.value is not None}
