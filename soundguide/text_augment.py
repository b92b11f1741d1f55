"""Other wordings of a caption: synonyms, another order of words, inserted synonyms (Lee et al., Sec. 3.1.1).

Everything here is a pure function of its arguments and of the generator that it is given; the same text, synonyms and
seed give the same texts. For a seed that belongs to a clip pass ``random.Random(f"{seed}:{clip_id}")``.
"""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from random import Random

from soundguide.errors import InvalidConfig

Synonyms = Callable[[str], tuple[str, ...]]
"""Returns the synonyms of one lower-case word, never the word itself; a synonym may be of several words. May be ()."""

MAX_REPLACED_SHARE = 0.5  # at least half of what a caption says is said in its own words
_TRIES_PER_TEXT = 8
_MIN_TRIES = 40
# Words that say nothing alone. WordNet has nouns of that spelling (in: indium, a: ampere), which are no synonyms.
_FUNCTION_WORDS = frozenset(
    "a about above across after all along an and another around as at away be been before behind being below "
    "beneath beside between but by down during each for from get gets getting has have he her his i if in inside "
    "into is it its near no nor not of off on onto or other out over past she so some someone than that the their "
    "them then there these they this those through to together towards under until up upon via was were while who "
    "with within without".split()
)
_WORD = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)


def augment_texts(
    text: str, count: int, *, synonyms: Synonyms, random: Random, max_replaced: float = MAX_REPLACED_SHARE
) -> list[str]:
    """Return ``count`` other wordings of ``text``.

    Each replaces words by synonyms, inserts one synonym, changes the order of words, or does several of these. They
    differ from ``text`` and from each other as long as tries find new ones; where a text has fewer wordings, ``text``
    itself and then repeats fill up, and where it has none (no word, or one without synonyms) all are ``text``.
    ``max_replaced``: the largest share of the words with meaning (no articles, prepositions and such) that is replaced,
    in [0, 1], rounded down to words.

    Raises `InvalidConfig` for a negative count or a share outside [0, 1].
    """
    if count < 0:
        raise InvalidConfig(f"the number of augmented texts must not be negative; got {count}. Ask for 0 or more.")
    _require_share(max_replaced)
    words = text.split()
    found: list[str] = []
    for _ in range(max(_MIN_TRIES, _TRIES_PER_TEXT * count)):
        if len(found) >= count:
            break
        other = _another_wording(words, synonyms, random, max_replaced)
        if other not in found and other != " ".join(words):
            found.append(other)
    if len(found) < count:
        found.append(text)
    return [found[i % len(found)] for i in range(count)]


def replace_words(
    words: Sequence[str], *, synonyms: Synonyms, random: Random, max_replaced: float = MAX_REPLACED_SHARE
) -> list[str]:
    """Return ``words`` with at least one replaced by a synonym, where any has one and the share allows it.

    At most ``max_replaced`` of the words with meaning, rounded down, are replaced, so that a single one stays unless
    the share is 1. Commas and the like around a word stay.
    """
    _require_share(max_replaced)
    replaced = list(words)
    places = [i for i, word in enumerate(words) if _synonyms_of(word, synonyms)]
    most = min(len(places), int(max_replaced * sum(_meaning(word) != "" for word in words)))
    if most:
        for i in random.sample(places, random.randint(1, most)):
            before, _, after = _parts(words[i])
            replaced[i] = before + random.choice(_synonyms_of(words[i], synonyms)) + after
    return replaced


def insert_synonym(words: Sequence[str], *, of: Sequence[str], synonyms: Synonyms, random: Random) -> list[str]:
    """Return ``words`` with a synonym of one of the words ``of`` at a random place, where any of them has one."""
    inserted = list(words)
    sources = [word for word in of if _synonyms_of(word, synonyms)]
    if sources:
        synonym = random.choice(_synonyms_of(random.choice(sources), synonyms))
        inserted.insert(random.randint(0, len(inserted)), synonym)
    return inserted


def permute_words(words: Sequence[str], *, random: Random) -> list[str]:
    """Return the same words in a random order."""
    return random.sample(list(words), len(words))


@functools.cache
def shipped_synonyms() -> Synonyms:
    """Return the synonyms that come with the package, for the words of common sound labels; it needs no download.

    They cover the labels of the miniature and the commonest words of those of ESC-50, UrbanSound8K, VGG-Sound and
    AudioSet. Other words have none.
    """
    table: dict[str, list[str]] = json.loads(resources.files("soundguide").joinpath("synonyms.json").read_text("utf-8"))
    entries = {word: tuple(others) for word, others in table.items()}
    return lambda word: entries.get(word, ())


class WordNetSynonyms:
    """Synonyms out of a WordNet (Fellbaum, 2010), read from a database on disk with the library Wn.

    ``folder``: a data directory of Wn, with its ``wn.db``, holding an English wordnet, such as Open English WordNet or
    Princeton's in its format. ``lexicon``: which of its wordnets, such as ``"oewn:2024"``; None takes all English ones.
    ``num_senses``: from how many senses of a word, the commonest, synonyms are taken, as a noun, as a verb and so on;
    rarer senses have little to do with sound, and some of their words are rude.

    Raises `InvalidConfig` where Wn is not installed, the folder holds no database, or that holds no such wordnet.
    """

    def __init__(self, folder: Path, *, lexicon: str | None = None, num_senses: int = 1) -> None:
        try:
            import wn
            from wn.morphy import Morphy
        except ImportError as error:
            raise InvalidConfig(
                "synonyms out of WordNet need the library Wn, which is not installed. Install the extra: pip install "
                "'soundguide[wordnet]', or use the synonyms that come with the package."
            ) from error
        if num_senses < 1:
            raise InvalidConfig(f"the number of senses must be at least 1; got {num_senses}. Ask for 1 or more.")
        if not (folder / "wn.db").is_file():  # Wn would make an empty one
            raise InvalidConfig(f"no WordNet database: {folder} has no file wn.db. {_REMEDY}")
        self._config = wn.config  # type: ignore[attr-defined]  # documented, but not in its __all__
        self._folder, self._num_senses = folder, num_senses
        self._config.allow_multithreading = True  # actors are made in one thread and work in others; we only read
        self._config.data_directory = folder
        try:
            self._wordnet = wn.Wordnet(lexicon, lang=None if lexicon else "en", expand="", normalizer=None)
        except (sqlite3.Error, wn.Error) as error:
            raise InvalidConfig(f"the WordNet database in {folder} cannot be used: {error}. {_REMEDY}") from error
        self._base_forms = Morphy()
        self._known: dict[str, tuple[str, ...]] = {}

    def __call__(self, word: str) -> tuple[str, ...]:
        """Return the other words of the first senses of ``word`` and of its base forms; no names, no duplicates."""
        if word not in self._known:
            self._known[word] = self._look_up(word)
        return self._known[word]

    def _look_up(self, word: str) -> tuple[str, ...]:
        self._config.data_directory = self._folder  # one for the whole process: another object may have changed it
        names: list[str] = []
        for part in _PARTS_OF_SPEECH:
            forms = (word, *sorted(self._base_forms(word, part).get(part, ())))
            senses = {found.id: found for form in forms for found in self._wordnet.synsets(form, pos=part)}
            names += [name for sense in list(senses.values())[: self._num_senses] for name in sense.lemmas()]
        return tuple(dict.fromkeys(name for name in names if name != word and name == name.lower()))


_PARTS_OF_SPEECH = ("n", "v", "a", "s", "r")
_REMEDY = (
    "Fetch one with: python -m wn --dir DIR download oewn:2024, or add a file in WN-LMF format with wn.add, and give "
    "the folder DIR."
)


def _require_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidConfig(f"the share of words to replace must be in [0, 1]; got {share}. Give 0.5 for half.")


def _another_wording(words: list[str], synonyms: Synonyms, random: Random, max_replaced: float) -> str:
    operations = random.randrange(1, 8)  # bits: at least one of three
    replace, insert, permute = operations & 1, operations & 2, operations & 4
    result = words
    if replace:
        result = replace_words(result, synonyms=synonyms, random=random, max_replaced=max_replaced)
    if insert:
        result = insert_synonym(result, of=words, synonyms=synonyms, random=random)
    if permute:
        result = permute_words(result, random=random)
    return " ".join(result)


def _synonyms_of(word: str, synonyms: Synonyms) -> tuple[str, ...]:
    meaning = _meaning(word)
    return synonyms(meaning) if meaning else ()


def _meaning(word: str) -> str:
    """Return the bare word in lower case, "" where it says nothing alone."""
    bare = _parts(word)[1].lower()
    return "" if bare in _FUNCTION_WORDS else bare


def _parts(word: str) -> tuple[str, str, str]:
    """Split off what is no letter or digit before and after a word: brackets, commas, full stops."""
    match = _WORD.match(word)
    assert match is not None  # the pattern fits any text
    return match[1], match[2], match[3]
