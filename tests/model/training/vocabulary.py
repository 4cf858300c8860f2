"""What the built-in model can hear: its words, and sentences made of them.

No two words sound alike in any accent (``python -m model.training words`` checks that
with espeak-ng), so a transcript is right or wrong and never a matter of spelling.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import random
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Sequence

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty "
    "ninety hundred thousand"
).split()
SPELLING = (
    "alpha bravo Charlie delta echo foxtrot golf hotel India Juliet kilo Lima Mike November "
    "Oscar papa Quebec Romeo sierra tango uniform Victor whiskey xray yankee zulu"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
COLOURS = "red green blue yellow orange purple black white brown pink grey golden".split()
ADJECTIVES = (
    "big small old new young long short happy sad good bad cold warm hot dark bright quiet slow "
    "quick strong empty full heavy little open ready safe lost alone hungry tired"
).split()
PEOPLE = (
    "man woman child boy girl king queen doctor teacher captain farmer friend brother sister "
    "mother father baker sailor"
).split()
ANIMALS = "dog cat bird fish horse cow mouse fox rabbit".split()
THINGS = (
    "house door window table chair book letter paper box bag key lamp clock bell ship boat train "
    "bridge stone coat cup bottle bread apple milk coffee sugar money music picture story "
    "song machine engine computer message answer question water fire light rain snow wind"
).split()
PLACES = (
    "garden kitchen river mountain island forest village city market school church street "
    "harbour station field beach"
).split()
PAST_WITH_OBJECT = (
    "found opened closed carried followed wanted needed liked loved watched washed painted "
    "called helped asked remembered forgot kept took gave bought sold saw heard made"
).split()
PAST_ALONE = (
    "waited walked laughed smiled slept listened worked started stopped came went fell ran sang "
    "turned looked lived"
).split()
VERBS = (
    "open close start stop find bring take give keep help call watch remember listen wait walk "
    "work play sing sleep turn look count record begin"
).split()
PRONOUNS = "he she they we you I it".split()
TIMES = "morning evening night today tomorrow yesterday week year minute summer winter".split()
FUNCTION = (
    "the a and but or because when then of in on at with from under behind near into after "
    "before until every this that my your our is was were are has had will can must "
    "not never always very only again there what where why who how if so"
).split()
OTHER = (
    "yes no please thank hello left right north south east west up down world home people".split()
)

_GROUPS = (
    NUMBERS, SPELLING, DAYS, MONTHS, COLOURS, ADJECTIVES, PEOPLE, ANIMALS, THINGS, PLACES,
    PAST_WITH_OBJECT, PAST_ALONE, VERBS, PRONOUNS, TIMES, FUNCTION, OTHER,
)  # fmt: skip
WORDS: list[str] = sorted({word for group in _GROUPS for word in group}, key=str.lower)
"""Every word once, spelt as in the middle of a sentence."""

ACCENTS = (
    "en", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd",
    "en-029", "en-us-nyc",
)  # fmt: skip
"""All English accents of espeak-ng."""


def sentence(rng: random.Random) -> str:
    """A sentence with a capital, perhaps commas, and a full stop: one in two follows grammar."""
    return _written(_random_words(rng, WORDS) if rng.random() < 0.55 else _natural(rng))


def training_sentence(rng: random.Random) -> str:
    """One for training. In one of four something is said twice, where a model loses its place."""
    while _is_held_out(text := _repetitive(rng)):
        pass
    return text


def held_out_sentence(rng: random.Random) -> str:
    """One of the same kind that training never has: every twentieth by its checksum."""
    while not _is_held_out(text := _repetitive(rng)):
        pass
    return text


def _is_held_out(text: str) -> bool:
    return zlib.crc32(text.encode()) % 20 == 0


def _written(words: str) -> str:
    return words[0].upper() + words[1:] + "."


def _repetitive(rng: random.Random) -> str:
    if rng.random() < 0.5:
        few = rng.random() < 0.12
        words = _random_words(rng, rng.sample(WORDS, rng.randint(2, 6)) if few else WORDS)
    else:
        words = _natural(rng)
    if rng.random() < 0.25:
        words = _echoed(rng, words.split(" "))
    return _written(words)


def _echoed(rng: random.Random, words: list[str]) -> str:
    """Up to four words come again, at most eight words later."""
    first = rng.randrange(len(words))
    last = min(len(words), first + rng.randint(1, 4))
    place = min(len(words), last + rng.randint(0, 8))
    return " ".join([*words[:place], *words[first:last], *words[place:]]).rstrip(",")


def _random_words(rng: random.Random, drawn_from: Sequence[str]) -> str:
    count = min(rng.randint(1, 14), rng.randint(1, 14))
    words = [rng.choice(drawn_from) for _ in range(count)]
    for place in range(len(words) - 1):
        if rng.random() < 0.08:
            words[place] += ","
    return " ".join(words)


def _natural(rng: random.Random) -> str:
    pattern = rng.choices(_PATTERNS, _WEIGHTS)[0]
    return pattern(rng)


def _noun(rng: random.Random) -> str:
    return rng.choice(rng.choice((PEOPLE, ANIMALS, THINGS, THINGS)))


def _adjective(rng: random.Random) -> str:
    return rng.choice(ADJECTIVES + COLOURS)


def _object(rng: random.Random) -> str:
    determiner = rng.choice("the the the a this that my your our every".split())
    adjective = _adjective(rng) + " " if rng.random() < 0.45 else ""
    noun = adjective + _noun(rng)
    if determiner == "a" and noun[0] in "aeiou":
        determiner = "the"
    return f"{determiner} {noun}"


def _place(rng: random.Random) -> str:
    preposition = rng.choice("in on at near behind under from into".split())
    adjective = _adjective(rng) + " " if rng.random() < 0.25 else ""
    return (
        f"{preposition} {rng.choice(('the', 'the', 'our', 'my', 'your'))} {adjective}"
        + rng.choice(PLACES)
    )


def _subject(rng: random.Random) -> str:
    if rng.random() < 0.4:
        return rng.choice("he she they we you I it".split())
    adjective = _adjective(rng) + " " if rng.random() < 0.4 else ""
    return f"{rng.choice(('the', 'the', 'our', 'my', 'this'))} {adjective}" + rng.choice(
        rng.choice((PEOPLE, PEOPLE, ANIMALS))
    )


def _number(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(NUMBERS[2:])
    small, ten = rng.choice(NUMBERS[1:10]), rng.choice(NUMBERS[20:28])
    if kind < 0.65:
        return f"{ten} {small}"
    if kind < 0.85:
        return f"{small} hundred and {rng.choice(NUMBERS[1:28])}"
    return f"{small} thousand {rng.choice(NUMBERS[1:10])} hundred and {ten} {small}"


def _clause(rng: random.Random) -> str:
    kind = rng.random()
    subject = _subject(rng)
    if kind < 0.4:
        clause = f"{subject} {rng.choice(PAST_WITH_OBJECT)} {_object(rng)}"
    elif kind < 0.75:
        clause = f"{subject} {rng.choice(PAST_ALONE)}"
    else:
        adverb = rng.choice(("", "", "very ", "not ", "never ", "always "))
        verb = {"I": "was", "he": "was", "she": "was", "it": "was"}.get(subject)
        verb = verb or ("were" if subject in ("we", "you", "they") else rng.choice(("is", "was")))
        return f"{subject} {verb} {adverb}{_adjective(rng)}"
    if rng.random() < 0.45:
        clause += " " + _place(rng)
    return clause


def _date(rng: random.Random) -> str:
    month, day = rng.choice(MONTHS), rng.choice(DAYS)
    return rng.choice(
        (
            f"it was a {_adjective(rng)} {day} in {month}",
            f"on {day} {_clause(rng)}",
            f"in {month}, {_clause(rng)}",
            f"{day}, {month} {_number(rng)}",
            f"every {day} in {month} {_clause(rng)}",
            f"from {day} until {rng.choice(DAYS)} {_clause(rng)}",
        )
    )


def _spelling(rng: random.Random) -> str:
    letters = [rng.choice(SPELLING) for _ in range(rng.randint(2, 6))]
    join = rng.choice((" ", ", "))
    return rng.choice(("", "", "please record ", "this is ", "call ")) + join.join(letters)


def _counting(rng: random.Random) -> str:
    if rng.random() < 0.5:
        start = rng.randint(0, 16)
        return ", ".join(NUMBERS[start : start + rng.randint(2, 7)])
    return rng.choice((" ", ", ")).join(rng.choice(NUMBERS) for _ in range(rng.randint(3, 8)))


def _counted(rng: random.Random) -> str:
    return (
        f"{_subject(rng)} {rng.choice(PAST_WITH_OBJECT)} {_number(rng)} "
        f"{rng.choice(('red', 'big', 'old', 'small', 'golden'))} {rng.choice(('fish', 'people'))}"
    )


def _joined(rng: random.Random) -> str:
    joint = rng.choice((", and ", ", but ", " because ", " when ", ", so ", ", then ", " and "))
    return _clause(rng) + joint + _clause(rng)


def _fronted(rng: random.Random) -> str:
    front = rng.choice(
        (
            "in the morning", "in the evening", "at night", "that night", "every morning", "then",
            "after a week", "after a long week", "before the winter", "yesterday", "in the summer",
            "every year", "after the rain",
            f"when {_clause(rng)}", f"because {_clause(rng)}", f"if {_clause(rng)}",
        )
    )  # fmt: skip
    return f"{front}{rng.choice((', ', ', ', ' '))}{_clause(rng)}"


def _command(rng: random.Random) -> str:
    verb = rng.choice("open close find bring take keep watch remember give stop start".split())
    start = rng.choice(("please ", "", "you must ", "we will ", "I can ", "never "))
    tail = rng.choice(("", " again", f" {_place(rng)}", " before tomorrow", " today", ", please"))
    return f"{start}{verb} {_object(rng)}{tail}"


def _question(rng: random.Random) -> str:
    return rng.choice(
        (
            f"where is {_object(rng)}",
            f"who {rng.choice(PAST_WITH_OBJECT)} {_object(rng)}",
            f"why was {_object(rng)} {_place(rng)}",
            f"what is in {_object(rng)}",
            f"how {_adjective(rng)} is {_object(rng)}",
        )
    )


def _direction(rng: random.Random) -> str:
    way = rng.choice("left right north south east west up down".split())
    return rng.choice(
        (
            f"turn {way} at {_object(rng)}",
            f"walk {_number(rng)} {way}, then turn {rng.choice(('left', 'right'))}",
            f"the {rng.choice(PLACES)} is {way} of the {rng.choice(PLACES)}",
            f"look {rng.choice(('up', 'down'))}, and wait",
        )
    )


def _phrase(rng: random.Random) -> str:
    return rng.choice(
        (
            "thank you", "yes", "no", "hello", "hello, world", "yes, please", "thank you, friend",
            f"no, {_clause(rng)}", f"yes, {_clause(rng)}", "please wait", "there is no answer",
            f"there was {_object(rng)} {_place(rng)}", "good morning", "good night",
        )
    )  # fmt: skip


_PATTERNS = (
    _clause, _joined, _fronted, _date, _spelling, _counting, _counted, _command, _question,
    _direction, _phrase,
)  # fmt: skip
_WEIGHTS = (14, 22, 14, 10, 6, 6, 4, 8, 5, 5, 4)


def homophones() -> list[tuple[str, list[str]]]:
    """Sets of words that sound alike in some accent; empty for a good vocabulary."""
    clashes = []
    for accent in ACCENTS:
        alike = defaultdict(list)
        for word, sound in zip(WORDS, _phonemes(accent), strict=True):
            alike[sound.translate({ord(mark): None for mark in "',_%=|"})].append(word)
        clashes += [(accent, words) for words in alike.values() if len(words) > 1]
    return clashes


def _phonemes(accent: str) -> list[str]:
    """What espeak-ng says for each word."""
    command = ["espeak-ng", "-q", "-x", "-v", accent]
    text = "\n\n".join(word.lower() + "." for word in WORDS)
    said = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return [line.strip() for line in said.stdout.splitlines() if line.strip()]


def check() -> None:
    """Fails if two words sound alike in any accent."""
    clashes = homophones()
    if clashes:
        raise SystemExit(f"these words sound alike: {clashes}")
    print(f"{len(WORDS)} words, no two of them alike in any of {len(ACCENTS)} accents")
