"""Other wordings of a caption, the synonyms that ship, and synonyms out of a WordNet that this file writes."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
import wn

from soundguide.errors import InvalidConfig
from soundguide.miniature.labels import LABELS
from soundguide.text_augment import (
    MAX_REPLACED_SHARE,
    WordNetSynonyms,
    augment_texts,
    insert_synonym,
    permute_words,
    replace_words,
    shipped_synonyms,
)

FUNCTION_WORDS = {"a", "at", "in", "of", "on", "the"}  # those of the texts below
SEEDS = range(30)
TEXTS = (
    *LABELS,
    "rowboat, canoe, kayak rowing",
    "a fire",
    "the sound of a river in the hills",
    "dog (barking), howling",
)
TABLE = {"rain": ("rainfall",), "falling": ("dropping", "coming down"), "loud": ("noisy",)}


def from_table(word: str) -> tuple[str, ...]:
    return TABLE.get(word, ())


def bare(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return [word for word in (re.sub(r"[^\w\s'-]", "", part).lower() for part in text.split()) if word]


@pytest.mark.parametrize("text", TEXTS)
def test_half_of_the_words_with_meaning_survive_in_every_wording(text: str) -> None:
    content = Counter(word for word in bare(text) if word not in FUNCTION_WORDS)
    for seed in SEEDS:
        for other in augment_texts(text, 4, synonyms=shipped_synonyms(), random=Random(seed)):
            lost = content - Counter(bare(other))
            assert lost.total() <= MAX_REPLACED_SHARE * content.total()


@pytest.mark.parametrize("text", TEXTS)
def test_every_word_of_a_wording_is_of_the_text_or_a_synonym_of_its_words(text: str) -> None:
    synonyms = shipped_synonyms()
    allowed = {*bare(text), *(part for word in bare(text) for other in synonyms(word) for part in bare(other))}
    for seed in SEEDS:
        for other in augment_texts(text, 4, synonyms=synonyms, random=Random(seed)):
            assert set(bare(other)) <= allowed


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_with_enough_wordings_gets_different_ones_none_of_them_itself(text: str) -> None:
    for seed in SEEDS:
        others = augment_texts(text, 3, synonyms=shipped_synonyms(), random=Random(seed))
        assert len(set(others)) == 3 and text not in others


def test_all_three_operations_occur() -> None:
    text = "rain falling loud today"
    kinds = set()
    for other in augment_texts(text, 60, synonyms=from_table, random=Random(0)):
        words = other.replace("coming down", "dropping").split()
        kept = [word for word in words if word in text.split()]
        inserted, replaced = len(words) > 4, len(set(kept)) < 4
        permuted = sorted(kept, key=text.split().index) != kept
        kinds.add((inserted, replaced, permuted))
    assert kinds == {(i, r, p) for i in (True, False) for r in (True, False) for p in (True, False)} - {(False,) * 3}


@pytest.mark.parametrize("text", ["rain falling, loud", "sea waves", "raining"])
def test_a_seed_gives_the_same_texts_and_another_seed_others(text: str) -> None:
    first, again, other = (augment_texts(text, 4, synonyms=shipped_synonyms(), random=Random(s)) for s in (5, 5, 6))
    assert first == again
    assert first != other or text == "raining"  # which has but four wordings


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    import random

    random.seed(1)
    before = random.getstate()
    augment_texts("sea waves", 4, synonyms=shipped_synonyms(), random=Random(0))
    assert random.getstate() == before


@pytest.mark.parametrize("text", ["", "xyzzy", "the", "no no no"])
def test_a_text_without_other_wordings_is_repeated(text: str) -> None:
    assert augment_texts(text, 3, synonyms=from_table, random=Random(0)) == [text] * 3


def test_two_words_without_synonyms_are_turned_round() -> None:
    for seed in SEEDS:
        assert augment_texts("alpha beta", 2, synonyms=from_table, random=Random(seed)) == ["beta alpha", "alpha beta"]


def test_one_word_with_a_synonym_stays_and_gets_company() -> None:
    for seed in SEEDS:
        others = augment_texts("rain", 3, synonyms=from_table, random=Random(seed))
        assert set(others) == {"rain rainfall", "rainfall rain", "rain"}


@pytest.mark.parametrize("count", [0, 1, 7])
def test_as_many_texts_as_asked_for(count: int) -> None:
    assert len(augment_texts("sea waves", count, synonyms=shipped_synonyms(), random=Random(0))) == count


def test_a_permutation_keeps_the_multiset_of_words_and_reaches_every_order() -> None:
    words = ["wind", "wind", "rain", "sea"]
    orders = {tuple(permute_words(words, random=Random(seed))) for seed in range(400)}
    assert len(orders) == 12  # 4! / 2!
    assert all(Counter(order) == Counter(words) for order in orders)


def test_a_replacement_keeps_places_and_punctuation() -> None:
    found = {tuple(replace_words(["Rain,", "(falling)"], synonyms=from_table, random=Random(seed))) for seed in SEEDS}
    assert found == {("rainfall,", "(falling)"), ("Rain,", "(dropping)"), ("Rain,", "(coming down)")}


@pytest.mark.parametrize(("share", "most"), [(0.0, 0), (0.34, 1), (0.67, 2), (1.0, 3)])
def test_the_share_bounds_how_many_words_are_replaced(share: float, most: int) -> None:
    words = ["rain", "falling", "the", "loud", "the"]
    changed = set()
    for seed in SEEDS:
        replaced = replace_words(words, synonyms=from_table, random=Random(seed), max_replaced=share)
        changed.add(sum(a != b for a, b in zip(words, replaced, strict=True)))
    assert changed == (set(range(1, most + 1)) or {0})


def test_an_insertion_adds_one_synonym_at_any_place() -> None:
    words = ["rain", "at", "sea"]
    found = {tuple(insert_synonym(words, of=words, synonyms=from_table, random=Random(seed))) for seed in range(60)}
    assert found == {tuple(words[:i] + ["rainfall"] + words[i:]) for i in range(4)}


def test_words_without_meaning_of_their_own_are_never_replaced() -> None:
    def indium(word: str) -> tuple[str, ...]:
        return ("indium",)

    for seed in SEEDS:
        others = augment_texts("waves in the sea", 4, synonyms=indium, random=Random(seed))
        assert all({"in", "the"} <= set(other.split()) for other in others)


@pytest.mark.parametrize(("count", "share"), [(-1, 0.5), (1, -0.1), (1, 1.5)])
def test_a_setting_out_of_range_is_refused(count: int, share: float) -> None:
    with pytest.raises(InvalidConfig, match=str(share if count > 0 else count)):
        augment_texts("sea", count, synonyms=from_table, random=Random(0), max_replaced=share)


def test_every_label_word_of_the_miniature_has_synonyms_that_ship() -> None:
    words = {word for label in LABELS for word in label.split()} - FUNCTION_WORDS
    assert not {word for word in words if len(shipped_synonyms()(word)) < 2}


def test_no_synonym_that_ships_is_a_word_of_another_label_of_the_miniature() -> None:
    for label in LABELS:
        others = {word for other in LABELS if other != label for word in other.split()} - FUNCTION_WORDS
        found = {part for word in label.split() for synonym in shipped_synonyms()(word) for part in synonym.split()}
        assert not (found & others) - set(label.split())


def test_common_label_words_have_synonyms_that_ship() -> None:
    labels = """dog rain crying baby door knock helicopter rooster sea waves sneezing mouse-click chainsaw pig crackling
    fire clapping keyboard typing siren cow chirping birds coughing engine frog cat wind crickets insects snoring
    thunderstorm toilet drinking airplane laughing gun shot car horn drilling jackhammer children playing street music
    speech singing guitar drum piano vehicle train boat church bell female male whistling violin trumpet motorcycle"""
    missing = [word for word in labels.split() if not shipped_synonyms()(word)]
    assert missing == []


def test_shipped_synonyms_are_bare_lower_case_and_never_the_word_itself() -> None:
    import json
    from importlib import resources

    table = json.loads(resources.files("soundguide").joinpath("synonyms.json").read_text("utf-8"))
    assert list(table) == sorted(table)
    for word, synonyms in table.items():
        assert shipped_synonyms()(word) == tuple(synonyms)
        assert synonyms and word not in synonyms and len(set(synonyms)) == len(synonyms)
        assert all(re.fullmatch(r"[a-z]+([ -][a-z]+)*", text) for text in [word, *synonyms])


ENTRIES = {  # lemma, part of speech: synsets, commonest first; further forms
    ("rain", "n"): (["rain-n", "shower-n"], []),
    ("rainfall", "n"): (["rain-n"], []),
    ("cascade", "n"): (["shower-n"], []),
    ("rain", "v"): (["rain-v"], []),
    ("rain down", "v"): (["rain-v"], []),
    ("goose", "n"): (["goose-n"], ["geese"]),
    ("water bird", "n"): (["goose-n"], []),
    ("Anser", "n"): (["goose-n"], []),
}


def wordnet_file(path: Path) -> Path:
    """Write a wordnet of a few words as WN-LMF, the exchange format of the Global WordNet Association."""
    entries = "".join(
        f'<LexicalEntry id="tiny-{i}"><Lemma writtenForm="{lemma}" partOfSpeech="{part}"/>'
        + "".join(f'<Form writtenForm="{form}"/>' for form in forms)
        + "".join(f'<Sense id="tiny-{i}-{synset}" synset="tiny-{synset}"/>' for synset in synsets)
        + "</LexicalEntry>"
        for i, ((lemma, part), (synsets, forms)) in enumerate(ENTRIES.items())
    )
    synsets = "".join(
        f'<Synset id="tiny-{synset}" ili="" partOfSpeech="{synset[-1]}"/>'
        for synset in ("rain-n", "shower-n", "rain-v", "goose-n")
    )
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">\n'
        '<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">\n'
        '<Lexicon id="tiny" label="Tiny" language="en" email="none@example.org" license="CC0" version="1">'
        f"{entries}{synsets}</Lexicon></LexicalResource>\n"
    )
    return path


@pytest.fixture(scope="module")
def wordnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("wordnet")
    wn.config.data_directory = made  # type: ignore[attr-defined]
    wn.add(wordnet_file(made / "tiny.xml"), progress_handler=None)
    shutil.copy(made / "wn.db", folder)  # Wn keeps the connection that made it, and its thread, by path
    return folder


def test_wordnet_gives_the_other_words_of_a_sense_nouns_first(wordnet_folder: Path) -> None:
    assert WordNetSynonyms(wordnet_folder)("rain") == ("rainfall", "rain down")


def test_wordnet_takes_rarer_senses_where_asked_to(wordnet_folder: Path) -> None:
    assert WordNetSynonyms(wordnet_folder, num_senses=2)("rain") == ("rainfall", "cascade", "rain down")


def test_wordnet_finds_base_forms_regular_and_irregular_and_leaves_out_names(wordnet_folder: Path) -> None:
    synonyms = WordNetSynonyms(wordnet_folder, lexicon="tiny:1")
    assert synonyms("raining") == ("rain", "rain down")
    assert synonyms("geese") == ("goose", "water bird")


def test_wordnet_does_not_know_every_word(wordnet_folder: Path) -> None:
    assert WordNetSynonyms(wordnet_folder)("xyzzy") == ()


def test_wordnet_answers_in_other_threads_than_its_own(wordnet_folder: Path) -> None:
    synonyms = WordNetSynonyms(wordnet_folder)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(synonyms, "rain").result() == ("rainfall", "rain down")


def test_captions_are_augmented_with_wordnet(wordnet_folder: Path) -> None:
    others = augment_texts("geese", 2, synonyms=WordNetSynonyms(wordnet_folder), random=Random(0))
    assert set(others) <= {"geese goose", "goose geese", "geese water bird", "water bird geese"}


@pytest.mark.parametrize("lexicon", ["oewn:2024", "other:*"])
def test_a_wordnet_that_the_database_lacks_is_named(wordnet_folder: Path, lexicon: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"{re.escape(lexicon)}.*python -m wn"):
        WordNetSynonyms(wordnet_folder, lexicon=lexicon)


def test_a_folder_without_a_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"wn\.db.*python -m wn"):
        WordNetSynonyms(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wn.db").write_bytes(b"no database at all, only some text that is long enough" * 20)
    with pytest.raises(InvalidConfig, match="cannot be used.*python -m wn"):
        WordNetSynonyms(tmp_path)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wn", None)
    with pytest.raises(InvalidConfig, match=r"soundguide\[wordnet\]"):
        WordNetSynonyms(tmp_path)
