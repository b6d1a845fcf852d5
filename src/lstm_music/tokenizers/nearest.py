"""The words of a vocabulary that are nearest to others, for primers and rare words."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from lstm_music.midi.piece import NOTE_OFF
from lstm_music.tokenizers import events, messages, performance
from lstm_music.tokenizers.vocabulary import Vocabulary


class NearestEvent:
    """Finds the vocabulary's word of the same kind with the nearest time; a pitch is itself."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._known = {*vocabulary}
        known = [event for event in map(events.parse, vocabulary) if event is not None]
        self._times = {
            events.AT: sorted(number for kind, number, _ in known if kind == events.AT),
            events.BAR_LINE: sorted(
                number for kind, number, _ in known if kind == events.BAR_LINE and number
            ),
        }

    def __call__(self, word: str) -> str | None:
        """Return the nearest word, of two the shorter time, or None where there is none."""
        kind, number, _ = events.parse(word) or (NOTE_OFF, 0, 0)
        if (
            kind == events.AT or (kind == events.BAR_LINE and number != events.SAME)
        ) and self._times[kind]:
            return events.spell(kind, min(self._times[kind], key=lambda time: abs(time - number)))
        return word if word in self._known else None


class NearestPerformance:
    """Finds the vocabulary's word of the same kind and part with the nearest number.

    A pitch is itself.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._known = {*vocabulary}
        self._numbers: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for kind, number, part in filter(None, map(performance.parse, vocabulary)):
            self._numbers[kind, part].append(number)

    def __call__(self, word: str) -> str | None:
        """Return the nearest word, of two the lower, or None where there is none."""
        kind, number, part = performance.parse(word) or (NOTE_OFF, 0, 0)
        numbers = self._numbers.get((kind, part), [])
        if kind in (performance.SHIFT, performance.VELOCITY) and numbers:
            nearest = min(numbers, key=lambda n: (abs(n - number), n))
            return performance.spell(kind, nearest, part)
        return word if word in self._known else None


class NearestWord:
    """Finds the vocabulary's word of the same kind and pitch with the nearest duration."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._specials = [word for word in messages.SPECIALS if vocabulary.get(word) is not None]
        self._deltas: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for message in filter(None, map(messages.parse, vocabulary.words)):
            kind, pitch, delta = message
            self._deltas[kind, pitch].append(delta)
        for deltas in self._deltas.values():
            deltas.sort()

    def __call__(self, word: str) -> str | None:
        """Return the nearest word, of two the shorter, or None where there is none.

        A special stands only for itself. Raises ValueError for a malformed word.
        """
        message = messages.parse(word)
        if message is None:
            return word if word in self._specials else None
        kind, pitch, delta = message
        deltas = self._deltas.get((kind, pitch))
        if deltas is None:
            return None
        right = bisect_left(deltas, delta)
        nearest = min(deltas[max(right - 1, 0) : right + 1], key=lambda known: abs(known - delta))
        return messages.spell(kind, pitch, nearest)


def nearest_word(word: str, vocabulary: Vocabulary) -> str | None:
    """Look up one word as NearestWord does, which is the faster way to look up many."""
    return NearestWord(vocabulary)(word)
