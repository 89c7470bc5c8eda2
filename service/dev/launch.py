"""Becomes the command it is given, after tying its life to the process that started it.

Run as a script with no imports beyond the standard library: ``launch.py PARENT_PID SIGNAL IDENTITY COMMAND...``.
A script and not a ``preexec_fn``, because code between fork and exec may deadlock in a process with threads.

``SIGNAL`` is delivered to the command when the parent dies, even by ``kill -9`` (Linux only; 0 for none).
``IDENTITY`` is ``self``, ``namespace`` (a user namespace in which root is called nobody: PostgreSQL refuses to run
as root, and files keep their owner) or ``nobody`` (setuid, for hosts that forbid user namespaces).

Exits with 71 (EX_OSERR) when the identity cannot be taken, 127 when the command cannot be run.
"""

import ctypes  # now, because nobody may not be allowed to read the library
import os
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
NOBODY = 65534


def enter_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def become_nobody() -> None:
    import pwd  # noqa: PLC0415

    entry = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def die_with(parent: int, signal: int) -> None:
    if not signal or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request was made
        sys.exit(0)


def main(arguments: list[str]) -> None:
    parent, signal, identity, *command = arguments
    try:
        if identity == "namespace":
            enter_namespace()
        elif identity == "nobody":
            become_nobody()
    except (OSError, KeyError) as error:
        print(f"cannot run as {identity}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(71)
    # after the change of identity, which clears the request
    die_with(int(parent), int(signal))
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
