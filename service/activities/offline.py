"""Three activities without a model: picked from a small catalogue by size, time, setting and words, and fitted.

It is not intelligent and does not claim to be: its results say `provider: offline`. The same input gives the same
three.
"""

import re

import msgspec

from service.activities.catalogue import CATALOGUE, Entry
from service.activities.schemas import COUNT, ActivitiesInput, Activity

WORD = re.compile(r"[a-z]{4,}")


def pick(wanted: ActivitiesInput) -> list[Activity]:
    """Pick the three entries that fit best and fit them to the team."""
    order = sorted(CATALOGUE, key=lambda entry: (-score(entry, wanted), entry.title))
    return [fit(entry, wanted) for entry in order[:COUNT]]


def score(entry: Entry, wanted: ActivitiesInput) -> float:
    """Tell how well an entry fits: setting and size weigh most, then time, then the team's words."""
    found = 4.0 if wanted.setting in entry.settings else 0.0
    found += 3.0 if entry.least <= wanted.team_size <= entry.most else 0.0
    found += 2.0 * min(entry.minutes, wanted.duration_minutes) / max(entry.minutes, wanted.duration_minutes)
    said = " ".join([wanted.topic, wanted.notes, *wanted.goals]).lower()
    return found + len(entry.words & set(WORD.findall(said)))


def fit(entry: Entry, wanted: ActivitiesInput) -> Activity:
    """Fill an entry's blanks with the team's size, time, topic and way of meeting."""
    groups = max(1, round(wanted.team_size / entry.group))
    blanks = {
        "size": str(wanted.team_size),
        "groups": "one group" if groups == 1 else f"{groups} groups",
        "group": str(min(entry.group, wanted.team_size)),
        "topic": re.sub(r"[{}]", "", wanted.topic).strip() or "your work together",
        "half": str(max(1, wanted.duration_minutes // 2)),
        "quarter": str(max(1, wanted.duration_minutes // 4)),
    }
    call = [] if wanted.setting == "onsite" else ["a video call with breakout rooms"]
    return Activity(
        title=entry.title,
        description=_fill(entry.description, blanks),
        duration_minutes=wanted.duration_minutes,
        materials=[*call, *entry.materials],
        steps=[_fill(step, blanks)[:300] for step in entry.steps],
    )


def _fill(text: str, blanks: dict[str, str]) -> str:
    for name, value in blanks.items():
        text = text.replace("{" + name + "}", value)
    return text


def check() -> list[str]:
    """Name the entries that would not be a valid activity for the largest team and the longest topic."""
    wanted = ActivitiesInput(team_size=500, topic="x" * 200, setting="hybrid", duration_minutes=480)
    faults: list[str] = []
    for entry in CATALOGUE:
        try:
            msgspec.convert(msgspec.to_builtins(fit(entry, wanted)), Activity)
        except msgspec.ValidationError as error:
            faults.append(f"{entry.title}: {error}")
    return faults
