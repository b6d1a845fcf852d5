"""The compiled rules against those in Python: the same words, and the same state after any word."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music import sampler
from lstm_music.midi import LAST_TICK
from lstm_music.sampler import Draft, FreeGrammar, Options
from lstm_music.tokenizers import grammar as grammars
from lstm_music.tokenizers.event_grammar import EventGrammar
from lstm_music.tokenizers.grammar import BAR, MessageGrammar
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END
from lstm_music.tokenizers.vocabulary import Vocabulary

piece = pytest.importorskip("lstm_music.compiled_piece")
rules = pytest.importorskip("lstm_music.compiled_rules")

START, PITCHES = 0, (60, 61, 67)
EVENTS = [
    *(f"{kind}-{pitch}" for kind in ("off", "on") for pitch in PITCHES),
    *("at-0", "at-240", "at-480", "at-960", f"at-{LAST_TICK}"),
    *("bar-1", "bar-240", "bar-480", "bar-1920", f"bar-{LAST_TICK}", "bar"),
]
MESSAGES = [
    TRACK_END,
    *(f"note-on-{pitch}-{delta}" for pitch in PITCHES for delta in (0, 240, 1920)),
    *(f"note-off-{pitch}-{delta}" for pitch in PITCHES for delta in (0, 480)),
    f"note-on-72-{LAST_TICK}",
]
randoms = st.integers(0, 2**32 - 1).map(Random)  # evener than st.randoms()
lengths = st.sampled_from(
    [
        {}, {"length": 25}, {"bars": 1}, {"bars": 3},
        *({"limit": n} for n in (1, 480, BAR, 2 * BAR + 100, 3 * LAST_TICK)),
    ]
)  # fmt: skip
meters = st.sampled_from([(), (), ((0, 1440),), ((0, 480), (480, 2400))])
primed = st.sampled_from([0, 0, 1, 7, 30])  # words of a primer that no length counts
habits = st.tuples(st.sampled_from([0, 1, 480, 3000]), st.integers(0, 4))


def vocabularies(words):
    """All of the words, all but a few, or some."""
    few = st.lists(st.sampled_from(words), max_size=3)
    most = few.map(lambda few: [word for word in words if word not in few])
    some = st.lists(st.sampled_from(words), unique=True)
    return st.one_of(most, some).map(lambda words: Vocabulary([PIECE_END, *words]))


def state_of(draft):
    """The fields of a piece and what sounds, as compiled rules hold them."""
    state = draft.rules
    _, *asked, most = draft.bounds
    fields = [
        *(state.now, state.notes, state.tracks, draft.before, len(draft.ids), draft.ended),
        *(*state.primed, draft.grammar.shortest if state.least is None else state.least),
        *(state.bar, state.line, state.bars, draft.bars_before),
        *(getattr(state, name, 0) for name in ("begin", "length")),
        *(getattr(state, "kind", piece.NO_KIND), getattr(state, "number", 0)),
        *(getattr(state, "heard", 0), *(-1 if n is None else n for n in asked), most),
    ]
    return fields, [state.sounding.get(pitch, piece.SILENT) for pitch in range(128)]


def words_of(draft):
    """The words that a draft would choose among; its end where there are none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "choose", lambda logits, allowed, u, options: allowed.tolist())
        found = draft._drawn(None)
    return found if found != START else []


def walk(grammar, options, choose, steps=120, primer=()):
    """Take the words that choose names, given those allowed and all, and compare after each."""
    draft = Draft(0, primer, grammar, options, START)
    compiled = rules.rules_of(grammar, options, START)
    (own,), (sounding,) = piece.new_pieces(compiled, [draft.bounds])
    longest = np.zeros(len(compiled.shortest), np.int64)
    for id in primer:
        draft.extend(None)
        rules.extend(compiled, own, sounding, id)
        assert (own.tolist(), sounding.tolist()) == state_of(draft)
    for _ in range(steps if not draft.ended else 0):
        allowed = words_of(draft)
        rules.longest_deltas(compiled, own, sounding, longest)
        within = compiled.deltas <= longest[compiled.classes[compiled.ids]]
        assert sorted(compiled.ids[within].tolist()) == allowed
        id = choose(allowed, range(len(grammar.kind)))
        draft.primer = [*draft.ids, id]
        draft.extend(None)
        taken = rules.extend(compiled, own, sounding, id)
        assert taken == (len(draft.ids) == len(draft.primer))
        assert (own.tolist(), sounding.tolist()) == state_of(draft)
        if draft.ended:
            return


def composed(grammar, random, n):
    """Up to n words, as the rules allow them or not, that end no piece."""
    draft, choose = Draft(0, [], grammar, Options(), START), drawn(random)
    while len(draft.ids) < n and not draft.ended:
        id = choose(words_of(draft), range(len(grammar.kind)))
        draft.primer = [*draft.ids, id]
        if id == START:
            break
        draft.extend(None)
    return draft.ids


def drawn(random):
    """Choose a word, most often one that is allowed."""
    return lambda allowed, known: random.choice(
        known if random.random() < 0.15 else allowed or [START]
    )


@pytest.fixture(autouse=True, scope="module")
def short():
    """Pieces that end soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammars, "SHORTEST", BAR)
        patch.setattr(grammars, "WHOLE_PIECE", 40)
        yield


@settings(deadline=None, max_examples=400)
@given(vocabularies(EVENTS), habits, lengths, primed, randoms)
def test_events_have_the_same_rules(vocabulary, habits, lengths, primed, random):
    grammar = EventGrammar(vocabulary, *habits)
    primer = composed(grammar, random, primed)
    walk(grammar, Options(**lengths, beyond=True), drawn(random), primer=primer)


@settings(deadline=None, max_examples=200)
@given(
    vocabularies(MESSAGES),
    st.sampled_from([MessageGrammar, FreeGrammar]),
    st.sampled_from(["flatten", "merge"]),
    habits,
    st.tuples(lengths, meters),
    primed,
    randoms,
)
def test_messages_have_the_same_rules(vocabulary, kind, layout, habits, how, primed, random):
    (longest, most), (lengths, meter) = habits, how
    grammar = kind(vocabulary, layout, longest, 2, most)
    primer = composed(grammar, random, primed)
    options = Options(**lengths, beyond=True, meter=meter)
    walk(grammar, options, drawn(random), primer=primer)


def test_a_note_without_an_end_is_none_that_ends_at_the_limit():
    vocabulary = Vocabulary([PIECE_END, "bar-960", "at-0", "at-480", "on-60", "off-60", "on-61"])
    words = iter(["bar-960", "at-0", "on-61", "at-480"])
    grammar = EventGrammar(vocabulary, 3000)
    walk(grammar, Options(limit=480), lambda *_: vocabulary.id(next(words)), 4)
