"""Breaks the product in a copy of it, one promise at a time, and sees whether the test of that promise fails.

    python -m tests.faults.mutants [PART OF A NAME ...]      # all of them: a few minutes

It ends with 1 where a test passes on a product that is broken.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TEARDOWN_SECONDS = 10.0
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".callboard")


class Mutant(NamedTuple):
    """What is broken: in which file which text becomes which; and the test that must fail then."""

    name: str
    file: str
    texts: tuple[tuple[str, str], ...]
    test: str


MUTANTS = (
    Mutant(
        "the fence stores no reply to a recipient",
        "service/emails/actors.py",
        (("fence_detail(refused, partial(continuation, stored), later)", "None"),),
        "tests/service/emails/test_recipients.py::test_a_definite_no_to_the_dot_tries_each_recipient_by_itself_once",
    ),
    Mutant(
        "the dot is written without asking the fence",
        "service/emails/actors.py",
        (("before_dot=before_dot", 'before_dot=lambda _: __import__("asyncio").sleep(0)'),),
        "tests/faults/test_workers.py::test_a_zombie_that_lost_its_lease_never_writes_the_dot",
    ),
    Mutant(
        "202 is answered before anything is stored",
        "service/web/accept.py",
        (
            (
                "return await self._batcher.submit(_Item(tenant_id, once, submission, size))",
                "self._later = asyncio.create_task(self._batcher.submit(_Item(tenant_id, once, submission, size))); "
                "return Accepted(Outcome.INSERTED, submission.answer)",
            ),
        ),
        "tests/faults/test_postgres.py::test_a_table_locked_for_longer_than_a_lease_is_waited_for",
    ),
    Mutant(
        "an Idempotency-Key is not looked at",
        "service/web/accept.py",
        (("once = await idempotency(request)", "once = None"),),
        "tests/faults/test_postgres.py::test_the_answer_to_a_commit_is_lost_and_the_same_key_finds_its_one_row",
    ),
    Mutant(
        "a message is settled before it has run",
        "workers/callboard_workers/execution/attempt.py",
        (
            (
                "            outcome = await _run(runtime, context, claim.args, claim.kwargs, begin)\n",
                "            await runtime.ledger.settle(claim, Done(), fenced=True)\n"
                "            outcome = await _run(runtime, context, claim.args, claim.kwargs, begin)\n",
            ),
        ),
        "tests/faults/test_workers.py::test_kill_9_in_the_midst_of_mail_again_and_again",
    ),
    Mutant(
        "a message without a row is acknowledged when it is fetched",
        "workers/callboard_workers/redis/scripts.py",
        (("    if #got > 0 then redis.call('HSET', KEYS[1], unpack(fields)) end\n", ""),),
        "tests/wire/test_faults.py::test_a_killed_workers_messages_run_elsewhere_and_only_those_in_flight_run_twice",
    ),
    Mutant(
        "nobody rings again",
        "workers/callboard_workers/ledger/sweeper.py",
        (("AND ring_at <= statement_timestamp()", "AND false"),),
        "tests/faults/test_redis.py::test_emptied_again_and_again_while_mail_flows_it_loses_none",
    ),
    Mutant(
        "nothing is taken back from the dead",
        "workers/callboard_workers/ledger/sweeper.py",
        (("NOT intent AND lease_until < clock_timestamp()", "NOT intent AND false"),),
        "tests/faults/test_workers.py::test_a_zombie_that_lost_its_lease_never_writes_the_dot",
    ),
    Mutant(
        "crashes are not counted",
        "workers/callboard_workers/ledger/sweeper.py",
        (("m.crashes + 1 >= m.max_crashes", "false"),),
        "tests/faults/test_workers.py::test_an_email_that_kills_its_workers_is_quarantined_and_the_others_are_sent",
    ),
    Mutant(
        "a crash counts against everything that its worker held",
        "workers/callboard_workers/ledger/sweeper.py",
        (("m.begun IS NOT DISTINCT FROM 1", "true"), ("lapsed.begun IS NOT DISTINCT FROM 1", "true")),
        "tests/wire/test_crash_isolation.py::test_one_poisonous_message_among_500_bystanders_is_the_only_one_to_end",
    ),
    Mutant(
        "a lost answer to the dot counts as a no",
        "service/emails/actors.py",
        (("return Uncertain(reason, detail)", "return Retry(1.0, reason, detail)"),),
        "tests/faults/test_smtp.py::test_taken_without_a_word_it_is_in_doubt_and_is_never_sent_again_by_itself",
    ),
    Mutant(
        "a fence whose answer was lost counts as passed",
        "workers/callboard_workers/ledger/ledger.py",
        (
            (
                'raise FenceUnheard(f"message {claim.id}: the ledger did not answer: {error}") from error',
                "return",
            ),
        ),
        "tests/faults/test_partitions.py::test_cut_off_from_postgres_before_the_dot_nothing_is_sent_and_afterwards_once",
    ),
)


@contextmanager
def copied(mutant: Mutant | None) -> Iterator[Path]:
    """A copy of the product, broken. Raises LookupError where there is nothing of the kind to break."""
    with tempfile.TemporaryDirectory(prefix="callboard-mutant-") as folder:
        place = Path(folder) / "product"
        shutil.copytree(ROOT, place, ignore=LEFT_OUT, symlinks=True)
        if mutant is not None:
            file = place / mutant.file
            whole = broken = file.read_text(encoding="utf-8")
            for old, new in mutant.texts:
                broken = broken.replace(old, new)
            if broken == whole:
                raise LookupError(f"{mutant.name}: {mutant.file} does not say what was to be broken")
            file.write_text(broken, encoding="utf-8")
        yield place


def passes(place: Path, test: str, log: Path, seconds: float | None = None) -> bool:
    """Whether a test passes on the product in this place. Raises TimeoutError where it takes longer than `seconds`."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider", test]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=place, env=environ, stdout=output, stderr=output, start_new_session=True
        ) as running,
    ):
        try:
            code = running.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{test} takes longer than {seconds} s") from None
        finally:
            _end(running)
    if code not in {0, 1}:  # neither passed nor failed
        raise RuntimeError(f"{test} could not be run; see {log}")
    return code == 0


def _end(running: subprocess.Popen[bytes]) -> None:
    """Interrupt pytest, so that it stops its servers; kill it and its group where that takes longer than a while."""
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            running.wait(TEARDOWN_SECONDS)
    if running.returncode is None:
        os.killpg(running.pid, signal.SIGKILL)


def main(words: Sequence[str]) -> int:
    """Checks the mutants whose names hold one of the words, all by default."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    logs = Path(tempfile.mkdtemp(prefix="callboard-mutants-"))
    wrong = 0
    for number, mutant in enumerate(chosen, 1):
        began, log = time.monotonic(), logs / f"{number}.log"
        with copied(mutant) as place:
            survives = passes(place, mutant.test, log)
        wrong += survives
        took = f"{time.monotonic() - began:4.0f} s"
        print(f"{'NOT NOTICED' if survives else 'noticed'} {took}  {mutant.name}  {mutant.test}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} are noticed; what the tests said is in {logs}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
