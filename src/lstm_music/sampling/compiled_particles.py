"""Drawing the next words of many pieces that share what is given, and what that says of each.

A piece's words are drawn among those that fit; what the network gave to all of these, of what the
rules let come, is its weight. Faults of the craft count as if the network found the word less
likely: exp(-craft) for each. So a piece's weights multiplied are an estimate of how likely what is
given is, and of how well it can be set (Gordon, Salmond & Smith 1993; Naesseth, Lindsten & Schön
2019, "Elements of sequential Monte Carlo").
"""

import math

import numpy as np

from lstm_music.network.recall import NONE
from lstm_music.ops.cpu.jit import njit, njit_module
from lstm_music.sampling import craft, given
from lstm_music.sampling.compiled_choice import choose, uniform
from lstm_music.sampling.compiled_copying import bucket_of, some_of, take
from lstm_music.sampling.compiled_rules import extend, longest_deltas
from lstm_music.sampling.copying import MOST
from lstm_music.sampling.craft import REST
from lstm_music.sampling.given import FIELDS
from lstm_music.sampling.rules import BAR_LINE, KEY, NOTE_OFF, NOTE_ON
from lstm_music.tokenizers.messages import PITCHES

RECORD = np.dtype([(name, np.int64) for name in FIELDS])  # Reached in compiled code
FORCED = -50.0  # the log of a word's weight that the rules forbid
GIVEN, CRAFT = njit_module(given), njit_module(craft, leave=("new_voices", "voices_of"))
fits, must, follow = (GIVEN[name] for name in ("fits", "must", "follow"))
next_needed = GIVEN["next_needed"]
note_faults, out_of_range, held_faults = (
    CRAFT[name] for name in ("note_faults", "out_of_range", "held_faults")
)
begin_note, next_place = CRAFT["begin_note"], CRAFT["next_place"]
ABOVE = 6  # a key's most semitones below what is written


@njit(cache=True)
def faults_of(rules, voices, r, id):  # type: ignore[no-untyped-def]
    """Return the faults of the craft that piece r has with a next word."""
    kind, number = rules.kinds[id], rules.numbers[id]
    if kind in (NOTE_OFF, KEY):
        return 0
    if kind > NOTE_ON:
        return held_faults(voices, r)
    voice = voices.of_part[number // PITCHES]
    if voice < 0:
        return 0
    pitch = number % PITCHES + voices.above[r]
    return note_faults(voices, r, voice, pitch) + out_of_range(voice, pitch)


@njit(cache=True)
def sing(rules, voices, r, id):  # type: ignore[no-untyped-def]
    """Have the voices of piece r take a word."""
    kind, number = rules.kinds[id], rules.numbers[id]
    if kind == KEY:
        voices.above[r] = (number + ABOVE) % (2 * ABOVE) - ABOVE
    elif kind > NOTE_ON:
        next_place(voices, r)
    else:
        voice = voices.of_part[number // PITCHES]
        if voice >= 0 and kind == NOTE_OFF:
            voices.now[r, voice] = -1
        elif voice >= 0:
            begin_note(voices, r, voice, number % PITCHES + voices.above[r])


@njit(cache=True)
def _penalties(rules, given, piece, reached, voices, r, n, weight, longest, x):  # type: ignore[no-untyped-def]
    """Write to x (V,) what the craft adds to the log of each word's share, -∞ where none fits."""
    x[:] = -np.inf
    count = 0
    for id in range(len(x)):
        may = rules.deltas[id] <= longest[rules.classes[id]]
        if may and (given is None or fits(given, rules, piece, reached, id, n)):
            x[id] = -weight * faults_of(rules, voices, r, id) if weight > 0 else 0.0
            count += 1
    return count


@njit(cache=True)
def _shares(rules, draw, longest, logits, x):  # type: ignore[no-untyped-def]
    """Return the log of what the network gives to the words that fit, of those that may come.

    x (V,): as _penalties; overwritten by what the words that fit are drawn by. Returns also the
    likeliest of them.
    """
    top, best, most = -np.inf, 0, -np.inf
    for id in range(len(x)):
        if rules.deltas[id] <= longest[rules.classes[id]]:
            top = max(top, logits[id] / draw.temperature)
    all, fit = 0.0, 0.0
    for id in range(len(x)):
        if rules.deltas[id] <= longest[rules.classes[id]]:
            scaled = logits[id] / draw.temperature
            all += math.exp(scaled - top)
            if x[id] > -np.inf:
                fit += math.exp(scaled - top + x[id])
                x[id] = (scaled + x[id]) * draw.temperature
                if x[id] > most:
                    best, most = id, x[id]
    return math.log(fit / all) if fit > 0 else -np.inf, best


@njit(cache=True, _nrt=False)  # see compiled_copying: no references are counted
def _copies(rules, gate, pasts, r, draw, scores, longest, x, ids, found):  # type: ignore[no-untyped-def]
    """Write what may be copied and the logs of its shares, the network's being 0; return how many.

    Returns also the sum of the shares of all that the rules let come. x (V,): as _penalties.
    """
    past, n, total = some_of(pasts, r), 0, 1.0
    for k in range(len(past.candidates)):
        code = past.candidates[k]
        id = gate.ids[code] if 0 <= code < len(gate.ids) else NONE
        if id != NONE and rules.deltas[id] <= longest[rules.classes[id]]:
            score = (scores[k] + gate.table[k, bucket_of(past, k)]) / draw.temperature
            total += math.exp(min(score, 700.0))
            if x[id] > -np.inf:
                ids[n], found[n] = id, score + x[id]
                n += 1
    return n, total


@njit(cache=True)
def _draw_copy(ids, found, n, own, u, draw):  # type: ignore[no-untyped-def]
    """Choose one of n copies, or NONE for a word of the network's; return what is left of u.

    own: the log of the network's share.
    """
    top, total = own, 0.0
    for k in range(n):
        top = max(top, found[k])
    network = math.exp(own - top)
    for k in range(n):
        found[k] = math.exp(found[k] - top)
        total += found[k]
    if draw.greedy:
        best, most = NONE, network
        for k in range(n):
            same = 0.0
            for j in range(n):
                same += found[j] if ids[j] == ids[k] else 0.0
            if same > most:
                best, most = ids[k], same
        return best, u
    if network < (1 - draw.top_p) * (network + total):
        network = 0.0
    left = u * (network + total)
    if left < network:
        return NONE, min(left / network, MOST)
    left -= network
    for k in range(n - 1):
        if left < found[k]:
            return ids[k], u
        left -= found[k]
    return ids[n - 1], u


@njit(cache=True)
def draw_words(  # type: ignore[no-untyped-def]
    rules, given, gate, weight, draw, rows, numbers, logits, scores,
    drafts, sounding, reached, pasts, voices, x, weights, drawn,
):  # fmt: skip
    """Draw the next words of some pieces, rows (n,), into x (R,); add to their weights (R,).

    logits (n, V), scores (n, K) or None. numbers, drawn (R,): which random numbers are next.
    """
    V = len(rules.kinds)
    longest = np.empty(len(rules.shortest), np.int64)
    fit, p = np.empty(V), np.empty(V)
    words = np.empty((4, 1), np.uint32)
    ids, found = np.empty(64, np.int64), np.empty(64)
    for i in range(len(rows)):
        r = rows[i]
        piece, m = drafts[r], reached[r]
        longest_deltas(rules, piece, sounding[r], longest)
        n = next_needed(given, rules, sounding[r], m.words) if given is not None else 0
        count = _penalties(rules, given, piece, m, voices, r, n, weight, longest, fit)
        if count == 0:
            x[r] = rules.start
            if given is not None:
                x[r] = must(given, rules, piece, m, sounding[r], n)
                weights[r] += FORCED
            continue
        copies, total = 0, 1.0
        if gate is not None:
            copies, total = _copies(
                rules, gate, pasts, r, draw, scores[i], longest, fit, ids, found
            )
        own, best = _shares(rules, draw, longest, logits[i], fit)
        whole = math.exp(own)
        for k in range(copies):
            whole += math.exp(min(found[k], 700.0))
        weights[r] += math.log(whole / total)
        u, id = uniform(draw, numbers[r], drawn[r], words), NONE
        if copies:
            id, u = _draw_copy(ids, found, copies, own, u, draw)
        x[r] = choose(fit, p, count, best, u, draw, rules.exact) if id == NONE else id


@njit(cache=True)
def take_words(  # type: ignore[no-untyped-def]
    rules, given, gate, rows, drafts, sounding, reached, pasts, voices, x, drawn, out
):
    """Have some pieces take their next words x (R,), which are written to out (R, …) by number."""
    for i in range(len(rows)):
        r = rows[i]
        id, piece, m = x[r], drafts[r], reached[r]
        n = next_needed(given, rules, sounding[r], m.words) if given is not None else 0
        at = piece.tokens
        if id != rules.start:
            sing(rules, voices, r, id)
        if extend(rules, piece, sounding[r], id):
            out[r, at] = id
        drawn[r] += 1
        if given is not None and id != rules.start:
            follow(given, rules, piece, m, id, n)
        elif rules.kinds[id] == BAR_LINE:
            m.bars += 1
        if id == rules.start:
            voices.before[r], voices.now[r], voices.begun[r] = REST, REST, 0
        if piece.ended:
            x[r] = rules.start
        elif gate is not None:
            take(gate, pasts, r, id, rules.start)
