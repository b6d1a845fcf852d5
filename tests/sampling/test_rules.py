"""The rules of sampling along random walks: as recorded, and the same in every language."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from rule_walks import (
    BAR,
    ENSEMBLES,
    KINDS,
    LATER,
    digest,
    primer_of,
    steps_of,
    tried,
    walk_of,
)

from lstm_music.network.config import State
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.report.browser_model import as_lists
from lstm_music.report.rules_script import rules_script
from lstm_music.sampling import compiled_rules, sampler, word_rules
from lstm_music.sampling import rules as sampling_rules
from lstm_music.sampling.automaton import Piece, advance, limit_of, next_bar
from lstm_music.sampling.device import PIECE, DeviceRules, packed_pieces
from lstm_music.sampling.options import Options
from lstm_music.sampling.sampler import Draft
from lstm_music.sampling.word_rules import (
    chord_rules,
    event_rules,
    message_rules,
    performance_rules,
)
from lstm_music.tokenizers.vocabulary import Vocabulary

RECORDED = Path(__file__).parents[1] / "fixtures" / "rule_walks.json"


@pytest.fixture(autouse=True, scope="module")
def short():
    """Pieces that end soon."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (sampler, word_rules):
            patch.setattr(module, "SHORTEST", BAR)
        patch.setattr(sampler, "WHOLE_PIECE", 40)
        yield


def rules_of(walk):
    """The rules of a walk's words."""
    vocabulary = Vocabulary(walk.words)
    if walk.kind in ("event", "parts"):
        rules = event_rules(vocabulary, walk.longest_note, walk.most_notes)
        return rules._replace(longest_piece=BAR * walk.max_tracks)
    if walk.kind.startswith("performance"):
        pause = 400 * walk.max_tracks
        return performance_rules(vocabulary, walk.longest_note, walk.most_notes, pause)
    if walk.kind == "chord":
        return chord_rules(vocabulary, 240)
    habits = (walk.longest_note, walk.max_tracks, walk.most_notes)
    return message_rules(vocabulary, walk.kind.split()[-1], *habits, free="free" in walk.kind)


class Walker:
    """Walks through the automaton in Python."""

    def __init__(self, rules, options, primer):
        self.rules, self.draft = rules, Draft(0, primer, rules, options)
        self.piece, self.sounding = self.draft.piece, self.draft.sounding

    @property
    def ended(self):
        return bool(self.piece.ended)

    def allowed(self):
        allowed = self.draft.allowed.tolist()
        return allowed if allowed != [0] else []

    def extend(self, id):
        self.draft.take(id)

    def place(self):
        """Where the piece stands: ticks, counts, limits, and what sounds since when."""
        piece, began = self.piece, self.sounding
        names = ("now", "notes", "tracks", "before", "tokens", "ended")
        lengths = (limit_of(self.rules, piece), next_bar(piece), piece.most)
        sounding = [(p, int(tick)) for p, tick in enumerate(began) if tick >= 0]
        return [*(int(getattr(piece, name)) for name in names), *lengths, sounding]


def some(n):
    """The seeds of some walks of each kind."""
    each = n // len(KINDS)
    return [*range(n), *(first + k for first in LATER for k in range(each))]


def steps(seed, walker=Walker, most=60):
    """The steps of a walk; walker: what makes one that follows rules, options and a primer."""
    walk = walk_of(seed)
    rules = rules_of(walk)
    primer = primer_of(walk, Walker(rules, Options(), []))
    return steps_of(walk, walker(rules, walk.options, primer), primer, most)


def test_walks_are_those_recorded():
    """Of each kind, with and without limits; but for cadences, as before a table told the rules."""
    recorded = json.loads(RECORDED.read_text("utf-8"))
    assert sum(count for count, _ in recorded) > 10_000
    for seed, expected in enumerate(recorded):
        assert digest(steps(seed)) == expected, seed


# Compiled ----------------------------------------------------------------------------------------


class CompiledWalker(Walker):
    """Walks through the automaton compiled by Numba."""

    def __init__(self, rules, options, primer):
        super().__init__(rules, options, primer)
        (self.record,) = compiled_rules.records([self.piece])
        self.longest = np.zeros(len(rules.shortest), np.int64)

    def allowed(self):
        compiled_rules.longest_deltas(self.rules, self.record, self.sounding, self.longest)
        within = self.rules.deltas <= self.longest[self.rules.classes]
        allowed = np.flatnonzero(within).tolist()
        return allowed if allowed != [0] else []

    def extend(self, id):
        compiled_rules.extend(self.rules, self.record, self.sounding, id)
        self.piece = Piece(*self.record.tolist())


def test_walks_compiled_are_the_same():
    assert all([*steps(seed, CompiledWalker)] == [*steps(seed)] for seed in some(400))


# On the device -----------------------------------------------------------------------------------


class DeviceWalker(Walker):
    """Walks through the rules of kernels/rules.cu, by the stand-in."""

    def __init__(self, ops, rules, options, primer):
        self.ops, self.rules = ops, rules
        self.device = DeviceRules(ops, 1, options, rules, [()])
        piece, _ = sampler.new_piece(rules, options, primer)
        self.device.pieces[:] = ops.asarray(packed_pieces([piece]), np.uint8)
        self.out = ops.asarray(np.full((1, 1), -1), np.int32)
        self.state = State(*(ops.xp.zeros((1, 1, 1), ops.dtype) for _ in range(2)))

    def allowed(self):
        self.device.mask()
        allowed = np.flatnonzero(self.ops.to_numpy(self.device.allowed)[0]).tolist()
        return allowed if allowed != [0] else []

    def extend(self, id):
        chosen, done = (self.ops.asarray(np.array([n]), np.int32) for n in (id, 0))
        self.device.advance(self.ops.xp.zeros(1, np.int32), chosen, self.out, done, self.state)

    @property
    def piece(self):
        return Piece(*self.ops.to_numpy(self.device.pieces).view(PIECE)[0].tolist())

    @property
    def sounding(self):
        return self.ops.to_numpy(self.device.sounding)[0]


on_device = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")


def walk_on_device(seeds, mutate=lambda code: code):
    """Hold walks on the device to those in Python; return how many steps they took."""
    ops = CupyOps("float32", cupy=HostCupy())
    ops.xp.mutate = mutate
    total = 0
    for seed in seeds:
        found = [*steps(seed, partial(DeviceWalker, ops))]
        assert found == [*steps(seed)], seed
        total += len(found)
    return total


@on_device
def test_walks_on_the_device_are_the_same():
    assert walk_on_device(some(60)) > 1000


WALKERS = {
    "python": Walker,
    "compiled": CompiledWalker,
    "device": lambda *made: DeviceWalker(CupyOps("float32", cupy=HostCupy()), *made),
}


@pytest.mark.parametrize("walker", ["python", "compiled", pytest.param("device", marks=on_device)])
def test_time_goes_on_to_a_limit_where_a_note_of_any_part_may_end(walker):
    """The same word ends it as ends one of another part; of drums, whose words differ, its own."""
    vocabulary = Vocabulary(["piece-end", *ENSEMBLES])
    rules = performance_rules(vocabulary, 3000, 9, 3000)
    began = ["part-3", "velocity-0", "on-60", "shift-24"]
    for words, goes_on in (
        (began, True), ([*began, "off-60"], False),
        ([*began[:2], "on-61/2", "shift-24", "part-1"], True),
        ([*began, "part-1", "on-67", "part-3", "off-60"], True),
    ):  # fmt: skip
        made = WALKERS[walker](rules, Options(limit=480), [])
        for word in words:
            made.extend(vocabulary.id(word))
        if words[-1] == "part-1":
            made.extend(vocabulary.id("on-60"))
        assert (vocabulary.id("shift-24") in made.allowed()) is goes_on, words


# On the page -------------------------------------------------------------------------------------

in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)
PAGE = Path(sampling_rules.__file__).parents[1] / "report" / "browser"
WALK = """
(rules, ids) => {
    const { piece, sounding } = newPiece(rules);
    const longest = new Int32Array(rules.shortest.length);
    const steps = [];
    for (const id of ids) {
        allow(rules, piece, sounding, mayEnd(rules, piece), longest);
        steps.push(rules.classes.flatMap((c, n) => (rules.deltas[n] <= longest[c] ? [n] : [])));
        advance(rules, piece, sounding, id);
        const sounds = [...sounding].flatMap((tick, p) => (tick === SILENT ? [] : [[p, tick]]));
        const { now, notes, tracks } = piece;
        steps[steps.length - 1] = [steps[steps.length - 1], id, now, notes, tracks,
            nextBar(piece), sounds];
    }
    return steps;
}
"""


def endless(seed):
    """A walk without a length, which no end ends: the rules, ids, and what Python says of them."""
    walk = walk_of(seed)
    rules = rules_of(walk)
    walker, steps = Walker(rules, Options(), []), []
    for _ in range(60):
        allowed, id = walker.allowed() or [0], 0
        for _ in range(9):
            id = id or tried(walk, allowed)
        if id == 0:
            break
        advance(rules, walker.piece, walker.sounding, id)
        now, notes, tracks, *_, bar, _, sounds = walker.place()
        steps.append([allowed, id, now, notes, tracks, bar, [list(pair) for pair in sounds]])
    return rules, [step[1] for step in steps], steps


def walk_on_the_page(seeds, mutate=lambda code: code):
    """Hold walks of the page's script to those in Python; return how many steps they took."""
    code = "\n".join([rules_script(), (PAGE / "rules.js").read_text("utf-8")])
    total = 0
    with Browser() as browser:
        script = json.dumps(f"{mutate(code)}\nglobalThis.walk = {WALK}")
        browser.run(f"(0, eval)({script}) && 0")
        for seed in seeds:
            rules, ids, expected = endless(seed)
            found = browser.run(f"walk({json.dumps(as_lists(rules))}, {json.dumps(ids)})")
            assert found == expected, seed
            total += len(found)
    return total


@in_browser
def test_walks_on_the_page_are_the_same():
    assert walk_on_the_page(some(120)) > 2000


# Planted bugs ------------------------------------------------------------------------------------

PHASES_OF = {
    "merge": ("NOTHING_YET", "IN_PIECE"),
    "flatten": ("BETWEEN_TRACKS", "IN_TRACK"),
    "free merge": ("FREE_PIECE",),
    "free flatten": ("FREE_TRACKS",),
    "event": ("NO_BAR_YET", "AFTER_BAR", "AFTER_PLACE", "AFTER_NOTE"),
    "parts": ("NO_BAR_YET", "AFTER_BAR", "AFTER_PLACE", "AFTER_CADENCE", "AFTER_NOTE"),
    "chord": ("AMONG_CHORDS",),
    "performance": (
        "NOT_PLAYED_YET", "AFTER_SHIFT", "AFTER_VELOCITY", "AMONG_OFFS", "AMONG_ONS",
    ),
}  # fmt: skip
PHASES_OF["performance in parts"] = (
    "NO_PART_YET", "NOT_PLAYED_YET", "AFTER_SHIFT", "AFTER_PART",
    "AMONG_OFFS", "AFTER_VELOCITY", "AMONG_ONS", "ONS_OF_PART",
)  # fmt: skip
OF_MESSAGES = ("NOTE_OFF", "NOTE_ON", "TRACK_END", "PIECE_END")
KINDS_OF = {
    **dict.fromkeys(KINDS, OF_MESSAGES),
    "event": ("NOTE_OFF", "NOTE_ON", "PLACE", "BAR_LINE", "PIECE_END"),
    "parts": ("NOTE_OFF", "MOVE", "NOTE_ON", "PLACE", "BAR_LINE", "CADENCE", "PIECE_END"),
    "chord": ("CHORD", "PIECE_END"),
    "performance": ("NOTE_OFF", "NOTE_ON", "SHIFT", "VELOCITY", "PIECE_END"),
}
KINDS_OF["performance in parts"] = (*KINDS_OF["performance"], "PART")
CELLS = [
    (kind, phase, word)
    for kind, phases in PHASES_OF.items() for phase in phases for word in KINDS_OF[kind]
    if (phase, word) not in {  # where nothing sounds, and where there is no bar
        ("NOTHING_YET", "NOTE_OFF"), ("BETWEEN_TRACKS", "NOTE_OFF"), ("NO_BAR_YET", "PLACE"),
        ("NO_BAR_YET", "CADENCE"), ("NOT_PLAYED_YET", "NOTE_OFF"), ("AFTER_CADENCE", "CADENCE"),
    }
]  # fmt: skip


def number(name):
    return vars(sampling_rules)[name]


@pytest.mark.parametrize(("kind", "phase", "word"), CELLS)
def test_a_changed_cell_of_what_must_hold_changes_a_walk(kind, phase, word):
    """One fact less or more, of each phase and kind of word."""
    facts = int(sampling_rules.needs_table()[number(phase), number(word)])
    bits = [1 << n for n in range(len(sampling_rules.FACTS)) if facts & 1 << n]
    for bit in bits or [sampling_rules.IMPOSSIBLE]:
        assert walks_differ(kind, "needs", phase, word, facts ^ bit), (bit, facts)


@pytest.mark.parametrize(
    ("kind", "phase", "word"),
    [(*cell, word) for *cell, word in CELLS if word != "PIECE_END" and len(PHASES_OF[cell[0]]) > 1],
)
def test_a_changed_cell_of_what_follows_changes_a_walk(kind, phase, word):
    phases = [number(name) for name in PHASES_OF[kind]]
    follows = int(sampling_rules.next_table()[number(phase), number(word)])
    other = phases[(phases.index(follows) + 1) % len(phases)]
    assert walks_differ(kind, "next", phase, word, other)


def walks_differ(kind, table, phase, word, value):
    """Whether a walk is another with this value in a cell of a table."""
    recorded = json.loads(RECORDED.read_text("utf-8"))
    for seed in range(len(recorded)):
        walk = walk_of(seed)
        if walk.kind != kind:
            continue
        rules = rules_of(walk)
        changed = getattr(rules, table).copy()
        changed[number(phase), number(word)] = value
        planted = rules._replace(**{table: changed})
        primer = primer_of(walk, Walker(rules, Options(), []))
        if (
            digest(steps_of(walk, Walker(planted, walk.options, primer), primer, 60))
            != recorded[seed]
        ):
            return True
    return False


def with_cell(name):
    """Change what a table says of the first phase and a note-on, as it is generated."""

    def mutate(code):
        table = re.search(rf"{name}\b.*?= [\[{{]\s*[\[{{]\d+, \d+, (\d+),", code, re.DOTALL)
        if table is None:
            return code
        return code[: table.start(1)] + str(int(table[1]) ^ 1) + code[table.end(1) :]

    return mutate


@pytest.mark.parametrize("name", ["NEEDS", "NEXT"])
@pytest.mark.parametrize(
    "walk",
    [
        pytest.param(walk_on_device, marks=on_device),
        pytest.param(walk_on_the_page, marks=in_browser),
    ],
)
def test_a_changed_cell_of_a_generated_table_is_caught(walk, name):
    with pytest.raises(AssertionError):
        walk(range(60), mutate=with_cell(name))
