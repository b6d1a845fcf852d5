"""docs/maths.md: its worked example is what the code makes, and its exercises see what they say."""

import importlib.util
import inspect
import re
import textwrap
from collections import Counter

import gradcheck
import numpy as np
from documentation import ROOT
from small import track_of

from lstm_music.corpus.batches import Batches, TokenSource, cut_streams
from lstm_music.midi.piece import Piece
from lstm_music.network import lstm
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps
from lstm_music.ops.reference import maths, notes
from lstm_music.tokenizers.messages import MessageTokenizer
from lstm_music.tokenizers.vocabulary import Vocabulary

PAGE = (ROOT / "docs" / "maths.md").read_text("utf-8")

# Five notes -------------------------------------------------------------------------------------

FIRST = [(0, 480, 60), (480, 960, 64), (480, 960, 67)]  # start, end, pitch
SECOND = [(0, 480, 62), (480, 960, 60)]
B, T = 2, 3


def worked_example():
    """What the page shows: words and ids of two pieces, and the windows of two streams."""
    tokenizer = MessageTokenizer("merge")
    texts = [tokenizer.words(Piece("", [track_of(each)])) for each in (FIRST, SECOND)]
    counts = Counter(word for words in texts for word in words)
    vocabulary = Vocabulary.from_counts(counts, tokenizer.specials)
    pieces = [np.array([vocabulary.id(word) for word in words], np.int32) for words in texts]
    lines = []
    for words, ids in zip(texts, pieces, strict=True):
        cells = list(zip(words, map(str, ids.tolist()), strict=True))
        widths = [max(map(len, cell)) for cell in cells]
        for row, name in zip(zip(*cells, strict=True), ("token", "id"), strict=True):
            line = "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True))
            lines.append(f"{name:7}{line}".rstrip())
        lines.append("")
    lengths = [len(ids) for ids in pieces]
    offsets, start = np.cumsum([0, *lengths]), vocabulary.id("piece-end")
    source = TokenSource(np.concatenate(pieces), offsets, start)
    lines.append(f"{'':12}{'stream 0':16}stream 1")
    lines.append(f"{'':12}{'x   y   keep':16}x   y   keep")
    for n, batch in enumerate(Batches(source, cut_streams(lengths, [0, 1], B), T)):
        keep = np.ones((T, B)) if batch.keep is None else batch.keep
        for t in range(T):
            cells = (f"{batch.x[t, b]}   {batch.y[t, b]}   {keep[t, b]:.0f}" for b in range(B))
            name = f"window {n}" if t == 0 else ""
            lines.append((f"{name:12}" + "".join(f"{cell:16}" for cell in cells)).rstrip())
    return "\n".join(lines) + "\n"


def test_the_worked_example_is_what_the_code_makes():
    assert f"```text\n{worked_example()}```\n" in PAGE


# Exercises --------------------------------------------------------------------------------------

OPS = NumpyOps("float64")


def module_of(file):
    """A module of tests, whose functions are called as they are."""
    spec = importlib.util.spec_from_file_location(f"{file}_of_exercises", ROOT / "tests" / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def change(monkeypatch, owner, name, *lines):
    """Change lines of a function that the page names, (old, new), as somebody does who edits it."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in lines:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    made = {}
    exec(compile(source, "changed", "exec"), vars(inspect.getmodule(function)) | {}, made)
    monkeypatch.setattr(function, "__code__", made[name].__code__)


def told(*spans):
    """Spans of code that an exercise has the reader type."""
    assert all(f"`{span}`" in PAGE for span in spans)
    return spans


def wrong_arrays(check, *args):
    """The errors that a gradient check finds, by array; none where it passes.

    They are meant to be, and so not among those that the session tells of.
    """
    before = len(gradcheck.checks)
    try:
        check(OPS, *args)
    except AssertionError as error:
        return {name: float(e) for name, e in re.findall(r"([\w.]+): (\d\.\de[+-]\d+)", str(error))}
    finally:
        del gradcheck.checks[before:]
    return {}


def test_a_turned_sign_fails_every_gradient_check(monkeypatch):
    lines = told("dg[...] = dc * i * (1 - g * g)", "dg[...] = dc * i * (1 + g * g)")
    tests = module_of("network/test_lstm.py")
    assert not wrong_arrays(tests.test_gradients, (3, 2, 2, 7), tests.no_resets)
    change(monkeypatch, maths, "lstm_cell_backward", lines)
    assert {*wrong_arrays(tests.test_gradients, (3, 2, 2, 7), tests.no_resets)} == {*tests.NAMES}
    for shape in ((1, 1, 1, 1), (1, 1, 3, 2)):
        wrong = {*wrong_arrays(tests.test_gradients, shape, tests.no_resets)}
        assert wrong == {*tests.NAMES} - {"c0"}


def test_a_reset_left_out_going_back_fails_where_there_are_resets(monkeypatch):
    (line,) = told("dh *= keep[t][:, None]")
    change(monkeypatch, maths, "lstm_sequence_backward", (line, "pass"))
    tests = module_of("network/test_lstm.py")
    assert not wrong_arrays(tests.test_gradients, (5, 3, 3, 5), tests.no_resets)
    assert {*wrong_arrays(tests.test_gradients, (5, 3, 3, 5), tests.at_the_start)} == {"h0"}
    wrong = {*wrong_arrays(tests.test_gradients, (6, 5, 4, 3), tests.in_the_middle)}
    assert wrong == {*tests.NAMES}


def test_no_gradient_check_sees_resets_left_out_altogether(monkeypatch):
    work = "work = work or ops.workspace()"
    lines = told(work, "work, keep = work or ops.workspace(), None")
    change(monkeypatch, lstm, "lstm_forward", lines)
    tests = module_of("network/test_lstm.py")
    assert not wrong_arrays(tests.test_gradients, (6, 1, 1, 2), tests.in_the_middle)
    a, keep = tests.problem(3, 2, 2, 3), np.zeros((3, 2))
    found, expected = tests.forward(OPS, a, keep), tests.naive_forward(a, keep)
    assert not np.allclose(found[0], expected[0])


def test_what_is_overwritten_is_wrong_where_it_is_read_later(monkeypatch):
    (line,) = told("h[t] *= keep[t][:, None]")
    old, new = told(
        "self._dropout(y, seed, layer + 1, step, batch, x)",
        "x = y; self._dropout(y, seed, layer + 1, step, batch)",
    )
    with monkeypatch.context() as patch:
        change(patch, maths, "lstm_sequence_backward", (line, "pass"))
        tests = module_of("network/test_lstm.py")
        wrong = wrong_arrays(tests.test_gradients, (6, 5, 4, 3), tests.in_the_middle)
        assert {*wrong} == {"Wh"}
    change(monkeypatch, Model, "_forward", (old, new))
    tests = module_of("network/test_model.py")
    assert not wrong_arrays(tests.test_gradients, 1, 0.0)
    assert {*wrong_arrays(tests.test_gradients, 1, 0.4)} == {"lstm.0.Wh"}


def test_another_mask_going_back_is_wrong_below_it(monkeypatch):
    lines = told(
        "self._dropout(d, seed, layer + 1, step, batch)",
        "self._dropout(d, seed, layer + 1, step + 1, batch)",
    )
    change(monkeypatch, Model, "losses_and_grads", lines)
    tests = module_of("network/test_model.py")
    assert not wrong_arrays(tests.test_gradients, 1, 0.0)
    wrong = {*wrong_arrays(tests.test_gradients, 1, 0.4)}
    assert wrong == {"embedding.W", "lstm.0.Wx", "lstm.0.Wh", "lstm.0.b"}


def test_a_mean_over_rows_makes_every_gradient_too_small(monkeypatch):
    lines = told("1 / max(batch.targets, 1)", "1 / batch.y.size")
    change(monkeypatch, Model, "_head_backward", lines)
    tests = module_of("network/test_model.py")
    wrong = wrong_arrays(tests.test_gradients, 1, 0.0)
    assert len(wrong) == 6
    assert {*wrong.values()} == {0.2}


def test_the_state_after_a_note_is_not_that_before_it(monkeypatch):
    line, last = *told("a -= x[:, d, None] * W[d]"), "hidden += dz[:, None] * U[d] * s * (1 - s)"
    change(monkeypatch, notes, "nade_xent", (line, "pass"), (last, f"{last}; {line}"))
    wrong = wrong_arrays(module_of("ops/test_notes.py").test_gradients_of_a_nade)
    assert {*wrong} == {"hidden", "W", "U"}
