"""The catalogue of the offline generator."""

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One activity with blanks. `least` to `most` people in groups of `group`; `words` are what it is good for."""

    title: str
    description: str
    minutes: int
    least: int
    most: int
    group: int
    settings: frozenset[str]
    words: frozenset[str]
    materials: tuple[str, ...]
    steps: tuple[str, ...]


def _entry(
    title: str,
    about: tuple[int, int, int, int],
    settings: str,
    words: str,
    *told: str,
    materials: tuple[str, ...] = (),
) -> Entry:
    (minutes, least, most, group), (description, *steps) = about, told
    return Entry(
        title=title,
        description=description,
        minutes=minutes,
        least=least,
        most=most,
        group=group,
        settings=frozenset(settings.split()),
        words=frozenset(words.split()),
        materials=materials,
        steps=tuple(steps),
    )


ANYWHERE = "onsite remote hybrid"

CATALOGUE = (
    _entry(
        "Two maps of one system",
        (60, 4, 40, 4),
        ANYWHERE,
        "understanding architecture knowledge sharing onboarding system learning",
        "Everybody draws {topic} from memory; the differences between the drawings show what is not shared yet.",
        "Split the {size} of you into {groups}.",
        "Each person draws {topic} alone for {quarter} minutes: boxes, arrows, names.",
        "In the group, lay the drawings side by side and mark what is on one but not on another.",
        "Agree on one map and on the two questions that nobody could answer.",
        "Each group shows its map; somebody takes the open questions along.",
        materials=("a board or paper for each group",),
    ),
    _entry(
        "Story of a failure",
        (45, 3, 30, 5),
        ANYWHERE,
        "trust safety failure honesty feedback retrospective conflict",
        "One person tells of something that went wrong around {topic}; the others may only ask what and how.",
        "Sit in {groups} of about {group}.",
        "One teller per group: what was planned, what happened, how it felt. Five minutes, no comments.",
        "The others ask questions that begin with what or how, never with why.",
        "Together, name one thing that the teller did well.",
        "Change tellers while time allows; end with one sentence each on what you take along.",
    ),
    _entry(
        "Bridge of paper",
        (40, 4, 60, 4),
        "onsite",
        "creativity collaboration teamwork building problem solving energy",
        "Groups build the longest bridge that carries a cup, and find out how they share work under time.",
        "Make {groups} and give each its paper and tape.",
        "Plan for five minutes without touching the material.",
        "Build for {half} minutes.",
        "Test: the cup stands in the middle of the bridge for ten seconds.",
        "Talk in the group: who decided what, and who was not heard?",
        materials=("20 sheets of paper per group", "one roll of tape per group", "a cup with coins"),
    ),
    _entry(
        "Questions on a walk",
        (30, 2, 100, 2),
        "onsite",
        "connection relationship wellbeing health listening newcomers energy",
        "Pairs walk and talk about three questions, each for ten minutes or less.",
        "Pair up people who seldom work together.",
        "Walk. First question: what about {topic} has changed your mind lately?",
        "Second question: what should we stop doing?",
        "Third question: what help would you like to ask for?",
        "Back in the round, each says one thing about the other, with consent.",
        materials=("a card with three questions per pair",),
    ),
    _entry(
        "Silent kitchen table",
        (45, 4, 200, 6),
        ANYWHERE,
        "ideas planning strategy priorities decisions inclusion quiet",
        "Everybody writes on one shared sheet about {topic} without a word, and answers what others wrote.",
        "Form {groups}; each opens one shared sheet with the question in the middle.",
        "Write, draw and connect in silence for {half} minutes.",
        "Read it all, and put a dot on the three lines that matter most to you.",
        "Speak about the lines with the most dots only.",
        "Write down one decision, who carries it, and until when.",
        materials=("a shared document or a large sheet per group",),
    ),
    _entry(
        "Lightning lessons",
        (60, 5, 80, 6),
        ANYWHERE,
        "learning skills teaching knowledge sharing onboarding growth",
        "Each person teaches the group one small thing in five minutes.",
        "Take {quarter} minutes to prepare: one thing you can do that is useful for {topic}.",
        "In {groups}, each teaches for five minutes; the others try it at once.",
        "After each lesson, one minute: what will I use?",
        "Collect the lessons in one list that everybody can find.",
        materials=("a timer",),
    ),
    _entry(
        "Museum of small wins",
        (30, 3, 120, 5),
        ANYWHERE,
        "celebration recognition motivation morale appreciation retrospective",
        "The team hangs up what went well around {topic} and walks through it like through an exhibition.",
        "Each writes up to three cards: what happened, who made it happen.",
        "Hang the cards up; walk through the exhibition for {quarter} minutes.",
        "Add a thank-you to at least two cards that are not yours.",
        "In {groups}, choose one card and say how to make it happen again.",
        materials=("cards or a shared board",),
    ),
    _entry(
        "The premortem",
        (50, 3, 40, 5),
        ANYWHERE,
        "risk planning project strategy launch decisions problem solving",
        "It is a year from now and {topic} has failed. The team tells why, and then prevents it.",
        "Everybody writes alone for five minutes: it failed, because.",
        "In {groups}, read the reasons out and gather those that are alike.",
        "Vote for the three most likely ones.",
        "For each, write one sign that would show it early, and one step against it.",
        "Put the steps where you keep your work, with a name and a date.",
        materials=("a board",),
    ),
    _entry(
        "Sound check",
        (15, 2, 60, 60),
        "remote hybrid onsite",
        "energy warmup meeting connection wellbeing newcomers",
        "A short round that lets everybody be heard before the work begins.",
        "Each says in one sentence how they arrive today.",
        "One question for all {size} of you: which sound belongs to {topic}?",
        "On three, everybody makes theirs; microphones on.",
        "Each names one thing they need from this meeting.",
    ),
    _entry(
        "Escape from the backlog",
        (60, 4, 60, 4),
        ANYWHERE,
        "problem solving collaboration game competition fun teamwork",
        "Groups solve a chain of small riddles that are hidden in what they work with every day.",
        "The host hides five answers in places around {topic}: a document, a chart, an old message.",
        "{groups} start at the same time; each answer leads to the next riddle.",
        "A hint costs two minutes.",
        "Stop after {half} minutes and count the riddles solved.",
        "Talk: which riddle did nobody find alone, and what does that say?",
        materials=("five riddles prepared by one host",),
    ),
)
