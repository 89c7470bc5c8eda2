"""Reads the body of a batch: its frame strictly, each mail on its own, so that one bad mail is one error."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from service.core.errors import Fault, Forbidden, Invalid
from service.emails.batch.schemas import MAX_MAILS, Mode
from service.emails.compose import Desk
from service.emails.prepare import Draft
from service.emails.schemas import EmailRequest
from service.web.json_body import decode_plain

SLICE_SECONDS = 0.005
"""For which emails are read in one go: other requests have their turn in between."""

MAX_FAULTS = 100


class Frame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch whose mails are not read yet."""

    emails: list[Any]
    mode: Mode = "atomic"


class Refusal(msgspec.Struct, frozen=True):
    """A mail that cannot be stored."""

    code: str
    detail: str
    errors: list[Fault]


def frame(plain: Any) -> Frame:
    """Read the frame of a batch. Raises Invalid naming what is wrong with it."""
    mails = plain.get("emails")
    found = decode_plain({**plain, "emails": []} if isinstance(mails, list) else plain, Frame)
    if not isinstance(found, Frame):
        raise Invalid(found)
    found = msgspec.structs.replace(found, emails=mails)
    if not found.emails:
        raise Invalid([Fault("/emails", "is empty; give at least one mail.")])
    if len(found.emails) > MAX_MAILS:
        raise Invalid([Fault("/emails", f"{len(found.emails):,} mails; one batch takes at most {MAX_MAILS:,}.")])
    return found


async def drafts(mails: list[Any], desk: Desk) -> list[Draft | Refusal]:
    """Make a draft of each mail, or say why there is none."""
    found: list[Draft | Refusal] = []
    clock = asyncio.get_running_loop().time
    begun = clock()
    for index, plain in enumerate(mails):
        if clock() - begun > SLICE_SECONDS:
            await asyncio.sleep(0)
            begun = clock()
        found.append(await _draft(plain, f"/emails/{index}", desk))
    return found


def all_or_none(found: list[Draft | Refusal]) -> list[Draft]:
    """The drafts of a batch that has no refusal. Raises Invalid naming the faults of all that are refused."""
    made = [each for each in found if isinstance(each, Draft)]
    if len(made) < len(found):
        refused = [each for each in found if isinstance(each, Refusal)]
        faults = [fault for each in refused for fault in each.errors]
        detail = f"{len(refused)} of {len(found)} mails cannot be stored, so none is; see `errors`."
        raise Invalid(faults[:MAX_FAULTS], detail)
    return made


async def _draft(plain: Any, pointer: str, desk: Desk) -> Draft | Refusal:
    request = decode_plain(plain, EmailRequest, pointer)
    if not isinstance(request, EmailRequest):
        return _invalid(request)
    try:
        return await desk.draft(request)
    except Invalid as error:
        return _invalid(list(_below(pointer, error.errors)))
    except Forbidden as error:
        return Refusal(error.code, error.detail, [Fault(f"{pointer}/from", error.detail)])


def _invalid(faults: list[Fault]) -> Refusal:
    return Refusal(Invalid.code, "1 fault" if len(faults) == 1 else f"{len(faults)} faults", faults)


def _below(pointer: str, faults: tuple[Fault, ...]) -> Iterator[Fault]:
    for fault in faults:
        yield Fault(pointer + fault.pointer, fault.message)
