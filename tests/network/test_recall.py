"""What a piece has said before: each candidate against its definition, written plainly here."""

from typing import ClassVar

import numpy as np
import pytest
from small import small_corpus, small_ensembles, small_events, small_performances, small_rolls

from lstm_music.midi.roll import NOTES
from lstm_music.network import recall as recall_module
from lstm_music.network.compiled_recall import COMPILED, recalled
from lstm_music.network.recall import (
    AT,
    BAR_LINE,
    CADENCE,
    DELTA,
    FARTHEST,
    FIELDS,
    LAGS,
    LATEST,
    MATCH,
    MOVED,
    NEWEST,
    NONE,
    NOTE_OFF,
    NOTE_ON,
    OF_PHRASES,
    OPENING,
    OPENS,
    PITCH,
    PLACE,
    RANK,
    TRACK_END,
    Recall,
    RecallRules,
    bucket,
    bucket_of,
    code_of,
    forget,
    moved_code,
    new_recall,
    observe,
    remembered,
    unmoved,
)
from lstm_music.network.recall_rules import (
    frame_rules,
    frame_words,
    ids_of,
    message_says,
    numbered,
    recall_rules,
)
from lstm_music.ops.reference.copying import BUCKETS, HIT, LONG, NOTHING
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.messages import TRACK_END as TRACK_ENDS
from lstm_music.tokenizers.vocabulary import Vocabulary

ORDERS = (4, 2, 6)


def rules_for(words, orders=ORDERS, lags=(1,), line=0, phrases=0, same=NONE):
    """How words (V, FIELDS) are compared; the ids are their places among them."""
    return RecallRules(orders, lags, line, phrases, same, words, ids_of(words))


def in_lists(rules, n):
    """Room for a piece of n words, for plain Python."""
    return Recall(*(array.tolist() for array in new_recall(rules, n)))


def followed(rules, words):
    """What `observe` finds after each word: candidates (n, K) and runs (n, K)."""
    m, candidates, runs = in_lists(rules, len(words)), [], []
    for word in words:
        observe(rules, m, [int(x) for x in word])
        candidates.append(list(m.candidates))
        runs.append(list(m.runs))
    return np.array(candidates), np.array(runs)


def notes(pitches, says=()):
    """Words of one kind at these pitches, one a time step; says: what each says else."""
    says = says or [0] * len(pitches)
    return np.array([(s, p, PLACE, NONE, 1, 0) for s, p in zip(says, pitches, strict=True)])


# Matches ----------------------------------------------------------------------------------------


def alike(codes, q, n):
    """How many words up to places q and n are the same, FARTHEST at most."""
    length = 0
    while length <= min(q, FARTHEST - 1) and codes[q - length] == codes[n - length]:
        length += 1
    return length


def longest_matches(codes, order):
    """Where each word's longest earlier match goes on, or NONE; and its length.

    A match goes on as long as it tells the next word. Of equally long ones the latest; places
    beyond the NEWEST that end in the same words are not looked at.
    """
    found, p, run = [], NONE, 0
    for n in range(len(codes)):
        if p != NONE and codes[p] == codes[n]:
            p, run = p + 1, run + 1
        else:
            lengths = {q: alike(codes, q, n) for q in range(n)}
            newest = sorted((q for q in lengths if lengths[q] >= order), reverse=True)[:NEWEST]
            best = max(newest, key=lambda q: (lengths[q], q), default=NONE)
            p, run = (NONE, 0) if best == NONE else (best + 1, lengths[best])
        found.append((p, run))
    return found


def latest_places(codes, order):
    """The word after the latest place where the last words stood, or NONE."""
    found = []
    for n in range(len(codes)):
        places = [q for q in range(order - 1, n) if alike(codes, q, n) >= order]
        found.append(codes[max(places) + 1] if places else NONE)
    return found


def random_pieces():
    """Words (n, FIELDS) that often repeat, often moved, of few and of many kinds."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        kinds, range_ = rng.integers(1, 4), rng.integers(1, 9)
        phrases = [
            (rng.integers(kinds, size=n), rng.integers(range_, size=n))
            for n in rng.integers(3, 20, size=3)
        ]
        says, pitches = [], []
        for _ in range(12):
            phrase, move = phrases[rng.integers(3)], rng.integers(-3, 4)
            n = rng.integers(1, len(phrase[0]) + 1)
            says += phrase[0][:n].tolist()
            pitches += [60 + int(p) + int(move) * (seed % 2) for p in phrase[1][:n]]
        unpitched = rng.random(len(says)) < 0.1
        pitches = np.where(unpitched, NONE, pitches).tolist()
        yield notes(pitches, says)


@pytest.mark.parametrize("orders", [ORDERS, (1, 1, 3), (2, 3, 1)])
def test_matches_are_the_longest_earlier_ones(orders):
    lost = told = 0
    for words in random_pieces():
        rules = rules_for(words, orders)._replace(ids=np.zeros(0, np.int32))
        candidates, runs = followed(rules, words)
        codes = [code_of(word) for word in words.tolist()]
        assert [c for c, _ in targets(longest_matches(codes, orders[MATCH]), codes)] == (
            candidates[:, MATCH].tolist()
        )
        assert [run for _, run in longest_matches(codes, orders[MATCH])] == runs[:, MATCH].tolist()
        latest = latest_places(codes, orders[LATEST])
        # Words of other places in the same slot of the table may hide a place, no more than that.
        assert all(c in (c2, NONE) for c, c2 in zip(candidates[:, LATEST], latest, strict=True))
        lost += int((candidates[:, LATEST] != latest).sum())
        told += len(latest)
    assert lost < told / 20


def targets(matches, codes):
    """The words to which matches go on, and their lengths."""
    return [(NONE if p == NONE else codes[p], run) for p, run in matches]


def test_moved_matches_are_those_up_to_a_transposition():
    moved_ones = 0
    for words in random_pieces():
        rules = rules_for(words)._replace(ids=np.zeros(0, np.int32))
        candidates, runs = followed(rules, words)
        before, steps = 0, []
        for says, pitch, *_ in words.tolist():
            steps.append((says, None if pitch == NONE else pitch - before))
            before = before if pitch == NONE else pitch
        matches = longest_matches(steps, rules.orders[MOVED])
        before = 0
        for n, (p, run) in enumerate(matches):
            pitch = int(words[n, PITCH])
            before = before if pitch == NONE else pitch
            expected = NONE
            if p != NONE:
                says, step = steps[p]
                to = NONE if step is None else before + step
                if step is None or 0 <= to <= 127:
                    expected = code_of([says, to])
                moved_ones += step is not None and to != int(words[p, PITCH])
            assert candidates[n, MOVED] == expected
            assert runs[n, MOVED] == run
    assert moved_ones > 30


def test_a_tiny_piece_by_hand():
    """A melody of five notes, again, a third higher, and what each place then knows."""
    melody = [60, 62, 64, 65, 67]
    words = notes([*melody, *melody, *(p + 4 for p in melody)])
    rules = rules_for(words, orders=(3, 1, 3))
    candidates, runs = followed(rules, words)
    pitch = np.where(candidates == NONE, NONE, candidates - 1)
    assert pitch[:7, MATCH].tolist() == [NONE] * 7  # two notes are too few
    assert pitch[7:10, MATCH].tolist() == [65, 67, 60]
    assert runs[7:10, MATCH].tolist() == [3, 4, 5]
    # 64 came after 62, but 66 after it is new: the match is lost.
    assert pitch[10:, MATCH].tolist() == [NONE] * 5
    assert pitch[5:10, LATEST].tolist() == [62, 64, 65, 67, 60]
    assert runs[5:10, LATEST].tolist() == [0, 1, 2, 3, 4]
    # The steps 2, 2, 1 were there before, and go on with 2 and, the second time, -3.
    assert pitch[13:, MOVED].tolist() == [71, 68]
    assert runs[13:, MOVED].tolist() == [3, 4]


def test_of_equally_long_matches_the_latest_is_followed_until_it_is_wrong():
    words = notes([60, 62, 64, 70, 60, 62, 64, 71, 60, 62, 64, 70, 60])
    candidates, runs = followed(rules_for(words, orders=(3, 2, 6)), words)
    assert candidates[10, MATCH] - 1 == 71  # what followed last
    assert runs[10, MATCH] == 3
    assert candidates[11, MATCH] - 1 == 60  # 60 62 64 70: the earlier one is longer now
    assert runs[11:, MATCH].tolist() == [4, 5]


def searched(words, orders):
    """The match that a search finds after all these words: what is next and its length."""
    rules, m = rules_for(words, orders), in_lists(rules_for(words, orders), len(words))
    for word in words.tolist():
        m.pointers[MATCH] = NONE  # as if there were no match to follow
        observe(rules, m, word)
    return m.candidates[MATCH] - 1, m.runs[MATCH]


def test_the_longest_match_is_found_behind_later_shorter_ones():
    assert searched(notes([*range(50, 57), 90, *range(51, 57), 91, *range(50, 57)]), (6, 2, 6)) == (
        90,
        7,
    )


@pytest.mark.parametrize("later", [NEWEST - 1, NEWEST])
def test_a_search_looks_at_the_newest_places(later):
    shorter = [part for n in range(later) for part in (70 + n, 51, 52)]
    found = searched(notes([50, 51, 52, 99, *shorter, 50, 51, 52]), (2, 2, 6))
    assert found == ((99, 3) if later < NEWEST else (50, 2))


@pytest.mark.parametrize("length", [FARTHEST - 1, FARTHEST, FARTHEST + 1])
def test_a_search_compares_so_many_words_at_most(length):
    phrase = list(range(length))
    assert searched(notes([*phrase, 100, *phrase]), ORDERS) == (100, min(length, FARTHEST))


def test_codes_tell_words_apart_and_moved_ones_come_back():
    seen = {code_of([says, pitch]) for says in range(5) for pitch in range(-1, 128)}
    assert len(seen) == 5 * 129
    for says, pitch, before, now in ((0, 60, 55, 48), (3, 0, 127, 127), (2, NONE, 60, 61)):
        code = unmoved(moved_code(code_of([says, pitch]), before), now)
        to = NONE if pitch == NONE else pitch + now - before
        assert code == code_of([says, to])
    moved = lambda pitch, before: moved_code(code_of([1, pitch]), before)  # noqa: E731
    assert unmoved(moved(60, 50), 118) == NONE  # above 127
    assert unmoved(moved(50, 60), 9) == NONE
    assert unmoved(moved(127, 0), 0) == code_of([1, 127])


def test_buckets_are_powers_of_two():
    runs = (0, 1, 2, 3, 4, 7, 8, 255, 256, 10**6)
    assert [bucket(run, 10**7) for run in runs] == [0, 1, 2, 2, 3, 3, 4, 8, 9, 9]
    assert bucket(10**9, 10**9 + 1) == LONG - 1


def test_a_run_that_has_come_round_has_buckets_of_its_own():
    runs = (4, 5, 9, 10, 19, 20, 10**6)
    assert [bucket(run, 5) for run in runs] == [3, *(LONG + n for n in (0, 0, 1, 1, 2, 2))]
    assert bucket(10**9, 1) == BUCKETS - 1


def test_whatever_points_to_a_passages_third_time_has_come_round():
    """Of a phrase of four notes said twice and begun again, at each place of the third time."""
    phrase = [60, 64, 62, 67]
    rules = frame_rules(8, np.zeros((0, FIELDS), np.int64))
    words, m = notes(phrase * 3).tolist(), in_lists(rules, 12)
    for n, word in enumerate(words):
        observe(rules, m, word)
        lag = LAGS + 1  # a bar, of which the phrase is half
        if 8 <= n < 11:
            assert m.candidates[lag] == m.candidates[MATCH] == code_of(words[n + 1])
            assert m.runs[lag] < 8 and bucket_of(m, lag) == bucket_of(m, MATCH) == LONG
        elif 4 <= n < 7:
            assert bucket_of(m, MATCH) < LONG


# What stood here some bars before ---------------------------------------------------------------


class Events:
    """The rows of events as they are written: a bar, a place in it, what ends and begins there."""

    table = numbered(
        [
            ("bar", NONE, BAR_LINE, 0, 0, 0, 0),
            *((f"at-{at}", NONE, PLACE, at, 0, 1, 0) for at in (0, 480, 960)),
            *((0, p, NOTE_OFF, NONE, 0, 3 + p, p) for p in range(128)),
            *((1, p, NOTE_ON, NONE, 0, 131 + p, p) for p in range(128)),
            *((f"bar-{ticks}", NONE, BAR_LINE, ticks, 0, 0, 0) for ticks in (1440, 480)),
            ("cadence", NONE, CADENCE, NONE, 0, 2, 0),
        ]
    )
    places: ClassVar = {0: 1, 480: 2, 960: 3}
    first, pickup, cadence = 260, 261, 262

    @classmethod
    def ids(cls, *bars):
        """The ids of bars, each of {place: pitches that begin, or -1 - pitch for one that ends}."""
        ids = []
        for bar in bars:
            ids.append(0 if ids else cls.first)
            for at, pitches in bar.items():
                ids.append(cls.places[at])
                ids += sorted(4 - 1 - p if p < 0 else 132 + p for p in pitches)
        return ids


def events_found(*bars, ids=None, lags=(1, 2), phrases=0):
    """The candidates after each event, as ids, and the events' ids."""
    ids = ids or Events.ids(*bars)
    same = code_of(Events.table[0].tolist())
    rules = rules_for(Events.table, lags=lags, phrases=phrases, same=same)
    candidates, runs = followed(rules, Events.table[ids])
    found = np.where(candidates == NONE, NONE, np.append(rules.ids, NONE)[candidates])
    return found, runs, ids


def test_events_at_this_place_of_the_bar_before():
    first, second = {0: [60], 480: [-61, 62], 960: [64]}, {0: [60], 960: [65]}
    found, runs, ids = events_found(first, second, first)
    bar, at0, at480, at960 = 0, 1, 2, 3
    on = lambda p: 132 + p  # noqa: E731
    assert ids[:8] == [Events.first, at0, on(60), at480, 4 + 60, on(62), at960, on(64)]
    assert (found[:8, LAGS] == NONE).all()  # in the first bar there is none before
    # bar 2: after its line, 0, 60; at 960 what stood there; at the end the next line.
    assert found[8:13, LAGS].tolist() == [at0, on(60), at480, on(64), bar]
    assert runs[8:13, LAGS].tolist() == [0, 1, 2, 0, 0]
    # bar 3: nothing stood at 480 in bar 2, so what came later; and on-65 is above on-64.
    assert found[13:, LAGS].tolist() == [at0, on(60), *[at960] * 4, on(65), on(65)]
    # two bars before: bar 1 itself.
    assert found[13:, LAGS + 1].tolist() == [*ids[1:8], bar]
    assert runs[13:, LAGS + 1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_the_opening_is_told_anew_from_each_bar_line_until_it_is_right():
    """Four frames a bar, each with a note of its own."""
    a, b, c = [60, 61, 62, 63], [70, 71, 72, 73], [80, 81, 82, 83]
    rules = rules_for(notes(range(128)), (1, 1, 3), line=4)
    candidates, runs = followed(rules, notes([*a, *b, *a, *b, *c, *a]))
    told = (candidates[3:-1, OPENING] - 1).reshape(5, 4).tolist()  # of bars 2 to 6
    runs = runs[3:-1, OPENING].reshape(5, 4).tolist()
    assert (candidates[:3] == NONE)[:, OPENING].all()
    assert (told[0], runs[0]) == (a, [0] * 4)
    assert (told[1], runs[1]) == (a, [0, 1, 2, 3])  # it has come back,
    assert (told[2], runs[2]) == (b, [4, 5, 6, 7])  # and goes on
    assert (told[3], runs[3]) == (a, [8, 0, 0, 0])  # until it is wrong
    assert (told[4], runs[4]) == (a, [0, 1, 2, 3])


def test_the_opening_of_events_is_told_from_the_bar_line_itself():
    a, b = {0: [60], 480: [62]}, {0: [60], 480: [72]}
    found, runs, ids = events_found(a, a, b)
    assert found[:5, OPENING].tolist() == [NONE] * 5
    assert found[5:10, OPENING].tolist() == [*ids[1:5], 0]
    assert runs[5:10, OPENING].tolist() == [0, 1, 2, 3, 4]
    assert found[10:, OPENING].tolist() == [*ids[6:10], 0]  # after on-72, what stood then: a line


def test_where_a_phrase_begins_the_openings_of_the_piece_and_of_the_last_phrase_are_told():
    """A phrase from an upbeat, a second one, a third that begins as the second and changes."""
    on, off = (lambda p: 132 + p), (lambda p: 4 + p)
    bar, at0, at480, at960 = range(4)
    start, up, close = Events.first, Events.pickup, Events.cadence
    first = [at0, on(60), start, at0, off(60), on(62), at480, close, off(62), on(64)]
    again = [at960, off(64), on(60), bar, at0, off(60), on(62), at480, close, off(62), on(64)]
    other = [at960, off(64), on(70), bar, at0, off(70), on(72), at480, close, off(72), on(74)]
    end = [at960, off(74), on(70), bar, at0, off(70), on(76)]
    ids = [up, *first, *again, *other, *end]
    found, runs, _ = events_found(ids=ids, phrases=OF_PHRASES)
    last, third, fourth = -3, -2, -1
    n = 1 + len(first)
    told = found[n : n + len(again), OPENING].tolist()
    # Once the last phrase is silent; and a bar as long as the last, where the opening had to say
    # how long.
    assert told == [NONE, on(60), bar, at0, off(60), on(62), at480, close, off(62), on(64), at960]
    assert runs[n : n + len(again), OPENING].tolist() == [0, *range(10)]
    assert found[n + 1, last] == on(60)  # the last phrase is the piece's first
    n += len(again)
    assert (found[n, OPENING], found[n, last]) == (off(64), off(64))  # they go on: both were right
    assert found[n + 1, OPENING] == on(60)
    n += len(other)
    assert found[n - len(other) + 2 : n, OPENING].tolist() == [NONE] * (len(other) - 2)  # wrong
    assert (found[n, [OPENING, third, fourth, last]] == NONE).all()
    assert found[n + 1, [OPENING, third, fourth]].tolist() == [NONE, NONE, on(60)]
    told = found[n + 1 : n + len(end), last].tolist()
    assert told == [on(70), bar, at0, off(70), on(72), NONE]
    found, _, _ = events_found(ids=[up, *first, *other, *end], phrases=OF_PHRASES)
    n = 2 + len(first) + len(other)
    assert found[n, [OPENING, third, fourth]].tolist() == [NONE, on(60), NONE]


def test_messages_of_merged_tracks_at_this_place():
    """Bars of 1920 ticks: what stood there when the note messages of a bar before did."""
    bar = ["note-on-60-0", "note-off-60-480", "note-on-62-0", "note-off-62-480"]
    later = ["note-on-60-960", *bar[1:]]
    words = [PIECE_END, TRACK_ENDS, *dict.fromkeys([*bar, *later])]
    vocabulary = Vocabulary(words)
    tokenizer = {"name": "message", "layout": "merge"}
    rules = recall_rules(vocabulary, tokenizer)
    ids = [vocabulary.id(word) for word in [*bar, *later, *later]]
    candidates, runs = followed(rules, rules.words[ids])
    found = np.where(candidates == NONE, NONE, np.append(rules.ids, NONE)[candidates])
    assert rules.lags == tuple(1920 * bars for bars in (1, 2, 4, 8))
    assert (found[:4, LAGS] == NONE).all()
    # At tick 1920 (a new bar) the first bar's note-off comes next, and so on.
    assert found[4:8, LAGS].tolist() == [ids[1], ids[2], ids[3], ids[4]]
    assert runs[4:8, LAGS].tolist() == [0, 1, 2, 3]
    assert found[8:, LAGS + 1].tolist() == [ids[1], ids[2], ids[3], ids[4]]


def test_messages_of_tracks_end_to_end_never_cross_a_track():
    first = ["note-on-60-0", "note-off-60-1920"] * 3
    second = ["note-on-72-0", "note-off-72-1920"] * 3
    words = [PIECE_END, TRACK_ENDS, *dict.fromkeys([*first, *second])]
    vocabulary = Vocabulary(words)
    rules = recall_rules(vocabulary, {"name": "message", "layout": "flatten"})
    ids = [vocabulary.id(w) for w in [*first, TRACK_ENDS, *second, TRACK_ENDS]]
    candidates, _ = followed(rules, rules.words[ids])
    found = np.where(candidates == NONE, NONE, np.append(rules.ids, NONE)[candidates])
    own = {vocabulary.id(word) for word in [*second, TRACK_ENDS]}
    placed = [OPENING, *range(LAGS, rules.candidates)]
    assert (found[6, placed] == NONE).all()  # a track begins
    assert set(found[7:13][:, placed].ravel().tolist()) <= own | {NONE}
    on, off = (vocabulary.id(word) for word in second[:2])
    assert found[7:13, LAGS].tolist() == [NONE, on, off, on, off, on]


def test_chords_and_frames_at_this_place():
    """Four frames a bar: one frame before, and so many bars before."""
    rng = np.random.default_rng(1)
    names = ["", "60", "60-64", "62-65", "67"]
    vocabulary = Vocabulary([PIECE_END, "rest", *names[1:]])
    rules = recall_rules(vocabulary, {"name": "chord", "grid": 4})
    ids = rng.integers(1, len(vocabulary), size=50)
    candidates, runs = followed(rules, rules.words[ids])
    found = np.where(candidates == NONE, NONE, np.append(rules.ids, NONE)[candidates])
    frames = np.zeros((50, NOTES), np.uint8)
    for t, id in enumerate(ids):
        word = vocabulary.words[id]
        frames[t, [int(p) - 21 for p in word.split("-") if p != "rest"]] = 1
    of_frames = recall_rules(vocabulary, {"name": "note", "grid": 4})
    words = frame_words(frames)
    codes = [code_of(word) for word in words.tolist()]
    by_frame, frame_runs = followed(of_frames, words)
    for k, lag in enumerate((1, 4, 8, 16, 32)):
        before = [ids[n + 1 - lag] if n + 1 >= lag else NONE for n in range(50)]
        assert found[:, LAGS + k].tolist() == before
        assert by_frame[:, LAGS + k].tolist() == [
            codes[n + 1 - lag] if n + 1 >= lag else NONE for n in range(50)
        ]
    assert np.array_equal(runs, frame_runs)  # chords and frames are compared alike


def lagging(rules, words):
    """Of each lag, the first word later than so long ago, in the same track; by all places.

    Of events, which a track alone has, in bars as long as the one at hand.
    """
    begin = length = now = began = 0
    where, found, told = [], [], None
    for n, word in enumerate(words):
        if word[OPENS] == BAR_LINE:
            begin, length = begin + length, int(word[AT]) or length
            now, told = begin, word if word[AT] else told
        elif word[AT] != NONE:
            now = begin + int(word[AT])
        now += int(word[DELTA])
        where.append((now, int(word[RANK])))
        if word[OPENS] == TRACK_END:
            now, began = 0, n + 1
        row = []
        for lag in rules.lags:
            at = now - lag * (length or 1), int(word[RANK])
            later = [k for k in range(began, n + 1) if where[k] > at]
            enough = n >= began and at[0] >= 0 and later
            code = code_of(words[later[0]]) if enough else NONE
            as_long = enough and told is not None and code == code_of(told)
            row.append(rules.same if as_long else code)
        found.append(row)
    return found


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A small corpus of each representation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("music")
        music = {"pieces": 8, "tracks": 2, "notes": 40}
        return {
            "merge": small_corpus(folder, "merge", **music),
            "flatten": small_corpus(folder, "flatten"),
            "event": small_events(folder),
            "performance": small_performances(folder),
            "ensemble": small_ensembles(folder),
            "chord": small_rolls(folder, "chord", grid=8),
            "note": small_rolls(folder, "note", grid=8),
        }


KINDS = ("merge", "flatten", "event", "performance", "ensemble", "chord", "note")


def pieces_of(corpus):
    """All pieces of a corpus as recall compares their words."""
    source = corpus.source([0] * len(corpus.pieces))
    return [source.words(piece, corpus.recall) for piece in range(len(corpus.pieces))]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ensemble"])
def test_lags_of_real_pieces_are_those_of_all_places(corpora, kind):
    """But of ensembles, whose parts have words at one place in any order."""
    corpus = corpora[kind]
    there = 0
    for words in pieces_of(corpus)[:4]:
        candidates, _ = followed(corpus.recall, words)
        expected = lagging(corpus.recall, words)
        assert candidates[:-1, LAGS:].tolist() == expected[:-1]  # the last is the piece's end
        there += int((np.array(expected) != NONE).sum())
    assert there > 100


# Cost -------------------------------------------------------------------------------------------


class Counted(list):
    """A list that counts how often it is read."""

    reads = 0

    def __getitem__(self, k):
        Counted.reads += 1
        return super().__getitem__(k)


def test_a_word_costs_no_more_in_a_long_piece():
    """Of music that is hard to search: long runs of one note, broken at random."""
    rng = np.random.default_rng(2)
    words = notes(np.where(rng.random(6000) < 0.02, rng.integers(50, 60, 6000), 60).tolist())
    rules = rules_for(words, lags=(1, 100), line=16)
    m = Recall(*(Counted(array.tolist()) for array in new_recall(rules, len(words))))
    costs = []
    for word in words.tolist():
        Counted.reads = 0
        observe(rules, m, word)
        costs.append(Counted.reads)
    searches = 3 * NEWEST * (2 * FARTHEST + 4)
    assert max(costs) < searches
    assert np.mean(costs[4000:]) < 1.2 * np.mean(costs[1000:3000])


# Compiled ---------------------------------------------------------------------------------------


def plainly(rules, words):
    """`remembered` in plain Python."""
    out = np.empty((len(words), rules.candidates), np.uint8)
    codes = np.empty(out.shape, np.int64)
    remembered(rules, in_lists(rules, len(words)), words.tolist(), out, codes)
    return out, codes


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_is_plain(corpora, kind):
    corpus, rng = corpora[kind], np.random.default_rng(3)
    rules, pieces = corpus.recall, pieces_of(corpus)[:3]
    if kind != "note":  # and words in no order
        pieces.append(rules.words[rng.integers(len(rules.words), size=700)])
    for words in pieces:
        (found, codes), plain = recalled(rules, words), plainly(rules, words)
        assert np.array_equal(found, plain[0]) and np.array_equal(codes, plain[1])
        hits = (found >= HIT) & (found != NOTHING)
        assert 0 < hits.sum() < (found != NOTHING).sum()


def test_remembered_says_what_observe_found(corpora):
    rules, words = corpora["event"].recall, pieces_of(corpora["event"])[0]
    m, buckets = in_lists(rules, len(words)), []
    for word in words.tolist():
        observe(rules, m, word)
        buckets.append([bucket_of(m, k) for k in range(rules.candidates)])
    candidates, _ = followed(rules, words)
    found, codes = plainly(rules, words)
    assert (found[0] == NOTHING).all()
    assert np.array_equal(codes[1:], candidates[:-1])
    for n in range(1, len(words)):
        code = code_of(words[n].tolist())
        for k in range(rules.candidates):
            there = candidates[n - 1, k] != NONE
            right = HIT * (candidates[n - 1, k] == code)
            assert found[n, k] == (buckets[n - 1][k] + right if there else NOTHING)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_piece_that_follows_another_remembers_nothing_of_it(corpora, compiled):
    corpus = corpora["merge"]
    rules, (first, second, *_) = corpus.recall, pieces_of(corpus)
    room = new_recall(rules, max(len(first), len(second)))
    m = room if compiled else Recall(*(array.tolist() for array in room))
    module = COMPILED if compiled else vars(recall_module)
    found = []
    for words in (first, second):
        out = np.empty((len(words), rules.candidates), np.uint8)
        codes = np.empty(out.shape, np.int64)
        module["remembered"](rules, m, words if compiled else words.tolist(), out, codes)
        module["forget"](m)
        found.append(out)
    assert np.array_equal(found[1], recalled(rules, second)[0])
    fresh = in_lists(rules, 1)
    forget(fresh)
    assert all(
        list(a) == list(b)
        for name, a, b in zip(Recall._fields, fresh, in_lists(rules, 1), strict=True)
        if name not in ("codes", "moved", "times", "before")
    )


# Words as numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_each_word_has_a_code_and_its_id_back(corpora, kind):
    rules = corpora[kind].recall
    codes = [code_of(word) for word in rules.words.tolist()]
    assert rules.ids[codes].tolist() == list(range(len(codes)))
    assert (rules.ids != NONE).sum() == len(codes)
    assert rules.candidates == LAGS + (5 if kind == "chord" else 4)


def test_words_of_one_kind_say_the_same_but_for_their_pitch(corpora):
    corpus = corpora["merge"]
    rows = dict(zip(corpus.vocabulary.words, corpus.recall.words.tolist(), strict=True))
    by_says = {}
    for word, (says, pitch, *_) in rows.items():
        kind = word.split("-")
        by_says.setdefault(says, set()).add((kind[0], kind[1], kind[3]) if pitch != NONE else word)
    assert all(len(kinds) == 1 for kinds in by_says.values())
    assert message_says("note-on-60-480")[1:] == (60, PLACE, NONE, 480, 128 + 60, 0)


def test_a_transposed_frame_says_the_same():
    frames = np.zeros((3, NOTES), np.uint8)
    frames[0, [10, 14, 17]] = frames[1, [11, 15, 18]] = 1
    (a, low, *_), (b, high, *_), (rest, none, *_) = frame_words(frames).tolist()
    assert a == b != rest and (low, high, none) == (31, 32, NONE)
