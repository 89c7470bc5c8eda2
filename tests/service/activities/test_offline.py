"""The catalogue that serves where no model is set."""

import pytest

from service.activities import offline
from service.activities.catalogue import CATALOGUE
from service.activities.schemas import ActivitiesInput


def test_every_entry_is_a_valid_activity_for_the_largest_team_and_the_longest_topic() -> None:
    assert len(CATALOGUE) >= 3
    assert offline.check() == []


@pytest.mark.parametrize("setting", ["onsite", "remote", "hybrid"])
@pytest.mark.parametrize("size", [2, 8, 40, 500])
def test_there_are_always_three_and_none_that_needs_another_setting(setting: str, size: int) -> None:
    wanted = ActivitiesInput(team_size=size, setting=setting)  # type: ignore[arg-type]
    found = offline.pick(wanted)
    titles = [activity.title for activity in found]
    assert len(set(titles)) == 3
    assert offline.pick(wanted) == found
    entries = {entry.title: entry for entry in CATALOGUE}
    assert all(setting in entries[title].settings for title in titles)
    assert not any("{" in text for activity in found for text in (activity.description, *activity.steps))


def test_the_teams_words_and_time_matter() -> None:
    calm = offline.pick(ActivitiesInput(team_size=6, goals=("celebration", "recognition", "appreciation")))
    risky = offline.pick(ActivitiesInput(team_size=6, notes="risk before the launch of our project"))
    assert calm[0].title == "Museum of small wins"
    assert risky[0].title == "The premortem"
    assert {activity.duration_minutes for activity in calm} == {45}


def test_braces_in_a_topic_are_words_not_blanks() -> None:
    found = offline.pick(ActivitiesInput(team_size=6, topic="{size}{group}"))
    assert any("sizegroup" in text for activity in found for text in (activity.description, *activity.steps))
