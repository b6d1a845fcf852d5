import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.errors import UserError
from lstm_music.tokenizers.vocabulary import Vocabulary

words = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None)
@given(st.lists(words, unique=True, max_size=20))
def test_words_and_ids_are_inverse(words):
    vocabulary = Vocabulary(words)
    assert len(vocabulary) == len(words)
    assert vocabulary.words == tuple(words)
    for id, word in enumerate(words):
        assert vocabulary.word(id) == word
        assert vocabulary.id(word) == vocabulary.get(word) == id


@settings(deadline=None)
@given(st.lists(words, unique=True, max_size=20))
def test_a_vocabulary_survives_json(words):
    vocabulary = Vocabulary(words)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert (again.words, again.hash) == (vocabulary.words, vocabulary.hash)


def test_the_hash_is_of_the_words_joined_by_line_breaks():
    assert Vocabulary(["a", "b"]).hash == hashlib.sha256(b"a\nb").hexdigest()
    assert Vocabulary(["b", "a"]).hash != Vocabulary(["a", "b"]).hash


def test_an_unknown_word_or_id_is_none_or_an_error():
    vocabulary = Vocabulary(["a"])
    assert vocabulary.get("b") is None
    with pytest.raises(KeyError):
        vocabulary.id("b")
    for id in (1, -1):
        with pytest.raises(IndexError):
            vocabulary.word(id)


def test_counted_words_are_ordered_by_count_then_alphabet():
    counts = {"g": 2, "b": 2, "end": 9, "c": 2, "f": 2, "d": 5, "e": 2, "a": 1}
    assert Vocabulary.from_counts(counts, ["start", "end"]).words == (
        *("start", "end"),
        *("d", "b", "c", "e", "f", "g", "a"),
    )


@pytest.mark.parametrize("words", [["a", "b", "a"], [""], ["a\nb"]])
def test_words_that_cannot_be_numbered_are_refused(words):
    with pytest.raises(ValueError):
        Vocabulary(words)


GOOD = Vocabulary(["a", "b"]).to_json()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "format 1"),
        ([], "format 1"),
        ({}, "format 1"),
        (GOOD | {"format": 2}, "format 1"),
        (GOOD | {"words": "ab"}, "list of strings"),
        (GOOD | {"words": ["a", 1]}, "list of strings"),
        (GOOD | {"words": ["a", "a"]}, "'a' occurs twice"),
        (GOOD | {"words": ["\ud800"]}, "damaged"),
        (GOOD | {"words": ["b", "a"]}, "hash"),
        (GOOD | {"hash": None}, "hash"),
    ],
)
def test_damaged_json_is_refused_in_one_line(data, reason):
    with pytest.raises(UserError, match=reason) as error:
        Vocabulary.from_json(data)
    assert len(str(error.value).splitlines()) == 1
