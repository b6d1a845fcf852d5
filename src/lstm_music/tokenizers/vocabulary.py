"""The words a model knows, numbered."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from lstm_music.errors import UserError

FORMAT = 1


class Vocabulary:
    """Words and their ids, 0 to len - 1, which never change.

    Raises ValueError for a word that occurs twice, is empty or holds a line break.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)
        self._ids = {word: id for id, word in enumerate(self._words)}
        if len(self._ids) < len(self._words):
            twice = next(word for id, word in enumerate(self._words) if self._ids[word] != id)
            raise ValueError(f"the word {twice!r} occurs twice")
        # Otherwise two vocabularies could share a hash.
        if any(not word or "\n" in word for word in self._words):
            raise ValueError("a word is empty or holds a line break")
        self._hash = hashlib.sha256("\n".join(self._words).encode()).hexdigest()

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], specials: Sequence[str]) -> "Vocabulary":
        """Number the specials first, then the counted words by falling count, ties by alphabet."""
        ordinary = counts.keys() - set(specials)
        return cls([*specials, *sorted(ordinary, key=lambda word: (-counts[word], word))])

    @classmethod
    def from_json(cls, data: Any) -> "Vocabulary":
        """Rebuild a vocabulary from what to_json gave.

        Raises UserError where the data aren't a vocabulary or the words don't match their hash.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UserError(f"not a vocabulary of format {FORMAT}")
        words = data.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UserError("a vocabulary's words must be a list of strings")
        try:
            vocabulary = cls(words)
        except ValueError as error:  # a lone surrogate, which has no UTF-8, among others
            raise UserError(f"damaged vocabulary: {error}") from error
        if data.get("hash") != vocabulary.hash:
            raise UserError("damaged vocabulary: its words don't match its hash")
        return vocabulary

    def to_json(self) -> dict[str, Any]:
        """Return what json.dump can write and from_json reads: format, hash and words."""
        return {"format": FORMAT, "hash": self.hash, "words": list(self.words)}

    def __len__(self) -> int:
        return len(self._words)

    @property
    def words(self) -> tuple[str, ...]:
        """All words, by id."""
        return self._words

    @property
    def hash(self) -> str:
        """SHA-256 of the words joined by line breaks, in hexadecimal."""
        return self._hash

    def word(self, id: int) -> str:
        """Return the word with this id; raises IndexError where there is none."""
        if id < 0:
            raise IndexError(f"no word has the id {id}")
        return self._words[id]

    def id(self, word: str) -> int:
        """Return this word's id; raises KeyError for an unknown word."""
        return self._ids[word]

    def get(self, word: str) -> int | None:
        """Return this word's id, or None for an unknown word."""
        return self._ids.get(word)
