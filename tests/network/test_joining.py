"""What a network for one corpus takes over from another's: rows kept bit by bit, words by name."""

import numpy as np
import pytest
from small import counts_of

from lstm_music.arrays import Batch
from lstm_music.network.config import Config
from lstm_music.network.joining import axes_of, joined, nearest_places
from lstm_music.network.model import Model, init_parameters, parameter_shapes
from lstm_music.ops import get_ops
from lstm_music.ops.reference.copying import BUCKETS
from lstm_music.tokenizers.messages import word_parts
from lstm_music.tokenizers.vocabulary import Vocabulary

KNOWN = ("piece-end", "off-60", "on-60", "bar", "on-62", "off-62", "at-0", "at-480")
ASKED = ("piece-end", "at-0", "on-62", "at-500", "on-59", "cadence", "on-60", "bar")
MESSAGES = ("piece-end", "note-on-60-0", "note-off-60-120", "note-on-62-0", "note-off-62-240")
OTHERS = ("piece-end", "note-off-62-120", "note-on-60-0", "note-on-61-30", "note-off-62-240")


def made(words, seed, head="softmax", copy=0):
    """Config, vocabulary and parameters of a model of some words, in float64."""
    vocabulary = Vocabulary(words)
    parts = word_parts(vocabulary) if head == "factored" else None
    config = Config(len(words), 5, 6, 2, head=head, nade=4, copy=copy, **counts_of(parts))
    return config, vocabulary, init_parameters(config, get_ops("numpy", dtype="float64"), seed)


def join(new, old):
    """The parameters of a new model that begins with an old one."""
    return joined(new[2], old[2], axes_of(*new[:2]), axes_of(*old[:2]))


def model_of(config, vocabulary, parameters):
    """A model in float64."""
    words = word_parts(vocabulary) if config.head == "factored" else None
    ops = get_ops("numpy", dtype="float64")
    return Model(config, ops, parameters=parameters, words=words)


def log_shares(model, ids):
    """The log-probabilities (T, V) of what may follow each of some ids, unnormalised."""
    state, rows = model.zero_state(1), []
    for id in ids:
        logits, state = model.step(np.array([id]), state)
        rows.append(logits[0])
    return np.array(rows)


def test_words_that_both_know_keep_their_rows_to_the_bit():
    new, old = made(ASKED, 1), made(KNOWN, 2)
    found = join(new, old)
    assert {name: p.shape for name, p in found.items()} == parameter_shapes(new[0])
    for id, word in enumerate(ASKED):
        if word in KNOWN:
            at = KNOWN.index(word)
            assert found["embedding.W"][id].tobytes() == old[2]["embedding.W"][at].tobytes()
            assert found["head.W"][:, id].tobytes() == old[2]["head.W"][:, at].tobytes()
            assert found["head.b"][id] == old[2]["head.b"][at]
    for name, p in old[2].items():
        if name.startswith("lstm."):
            assert found[name].tobytes() == p.tobytes() and found[name] is not p


def test_a_new_word_begins_as_the_nearest_of_its_kind_and_else_as_a_new_one():
    new, old = made(ASKED, 1), made(KNOWN, 2)
    table, before = join(new, old)["embedding.W"], old[2]["embedding.W"]
    np.testing.assert_array_equal(table[ASKED.index("at-500")], before[KNOWN.index("at-480")])
    np.testing.assert_array_equal(table[ASKED.index("on-59")], before[KNOWN.index("on-60")])
    np.testing.assert_array_equal(table[ASKED.index("cadence")], new[2]["embedding.W"][5])


def test_the_joined_network_says_of_words_it_knew_what_it_said():
    """Logits by name, whatever ids both give to words; an oracle in float64."""
    new, old = made(ASKED, 1), made(KNOWN, 2)
    common = [word for word in ASKED if word in KNOWN]
    one, other = model_of(*new[:2], join(new, old)), model_of(*old)
    found = log_shares(one, [ASKED.index(word) for word in common])
    said = log_shares(other, [KNOWN.index(word) for word in common])
    np.testing.assert_allclose(
        found[:, [ASKED.index(word) for word in common]],
        said[:, [KNOWN.index(word) for word in common]],
        rtol=1e-12,
    )


@pytest.mark.parametrize("head", ["softmax", "factored"])
def test_the_same_words_in_another_order_are_the_same_network(head):
    """Each word is as likely as before, so a piece has the same loss."""
    order = [0, 3, 1, 4, 2]
    words = tuple(MESSAGES[n] for n in order)
    new, old = made(words, 1, head, copy=4), made(MESSAGES, 2, head, copy=4)
    ids = np.array([1, 2, 3, 4, 0, 1, 4])
    recall = np.full((len(ids) - 1, 1, 4), 255, np.uint8)
    losses = []
    for (config, vocabulary, _), p, line in (
        (old, old[2], ids),
        (new, join(new, old), np.array([words.index(MESSAGES[id]) for id in ids])),
    ):
        model = model_of(config, vocabulary, p)
        x, y = line[:-1, None], line[1:, None]
        batch = Batch(x.astype(np.int32), y.astype(np.int32), None, len(x), recall=recall)
        losses.append(model.losses(batch, model.zero_state(1))[0])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)


def test_a_factored_head_keeps_classes_and_deltas_by_what_they_say():
    new, old = made(OTHERS, 1, "factored"), made(MESSAGES, 2, "factored")
    found, axes, known = join(new, old), axes_of(*new[:2]), axes_of(*old[:2])
    assert list(axes["head.U"].names) == [
        "note-off-62", "note-on-60", "note-on-61", "piece-end",
    ]  # fmt: skip
    assert list(axes["head.bd"].names) == ["0", "30", "120", "240"]
    for name, (axis, names) in axes.items():
        if "copy" not in name:
            for n, label in enumerate(names):
                if label in known[name].names:
                    at = list(known[name].names).index(label)
                    row = np.take(old[2][name], at, axis)
                    np.testing.assert_array_equal(np.take(found[name], n, axis), row)


def test_a_corpus_with_no_word_in_common_keeps_the_layers_alone():
    new, old = made(("end", "x", "y"), 1), made(KNOWN, 2)
    found = join(new, old)
    for name, p in found.items():
        source = old[2] if name.startswith("lstm.") else new[2]
        assert p.tobytes() == source[name].tobytes(), name


def test_a_gate_is_kept_as_far_as_both_have_candidates():
    """Words that tell of phrases have three more, the last ones."""
    for K, before in ((4, 7), (7, 4)):
        new, old = made(ASKED, 1, copy=K), made(KNOWN, 2, copy=before)
        old[2]["copy.G"] += 3
        found = join(new, old)
        np.testing.assert_array_equal(found["copy.G"][:, :4], old[2]["copy.G"][:, :4])
        np.testing.assert_array_equal(found["copy.R"][:4], old[2]["copy.R"][:4])
        np.testing.assert_array_equal(found["copy.G"][:, 4:], np.zeros((6, K))[:, 4:])
    assert "copy.G" not in join(made(ASKED, 1), made(KNOWN, 2, copy=4))
    assert join(made(ASKED, 1, copy=4), made(KNOWN, 2))["copy.G"].shape == (6, 4)


@pytest.mark.parametrize("head", ["sigmoid", "nade", "biaxial"])
def test_networks_of_notes_are_taken_over_whole(head):
    notes = tuple(str(pitch) for pitch in range(88))
    new, old = made(notes, 1, head), made(notes, 2, head)
    for name, p in join(new, old).items():
        assert p.tobytes() == old[2][name].tobytes()


@pytest.mark.parametrize(("K", "before"), [(3, 0), (3, 2), (0, 3)])
def test_a_biaxial_network_keeps_what_it_reads_as_far_as_both_have_candidates(K, before):
    """What a new candidate tells begins as in a new network."""
    notes = tuple(map(str, range(5)))
    new, old = made(notes, 1, "biaxial", K), made(notes, 2, "biaxial", before)
    old[2]["embedding.frame"] += 1
    found, both = join(new, old), min(K, before)
    assert {name: p.shape for name, p in found.items()} == parameter_shapes(new[0])
    kept = {"W": 25 + 12 + 5 * both, "frame": 1 + 16 + 12 + BUCKETS * both}
    for name, n in kept.items():
        table = found[f"embedding.{name}"]
        np.testing.assert_array_equal(table[:n], old[2][f"embedding.{name}"][:n])
        np.testing.assert_array_equal(table[n:], new[2][f"embedding.{name}"][n:])
    for name, p in old[2].items():
        if name.split(".")[-1] not in ("W", "frame", "G", "R"):
            np.testing.assert_array_equal(found[name], p)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("on-64/2", "on-64/1"), ("on-66/3", "on-65/4"), ("on-65/4", "on-65/4"), ("on-9", None),
        ("61-64", "60-64"), ("60-64-66", "60-64-67"), ("bar", "bar"), ("bars", None),
    ],
)  # fmt: skip
def test_near_are_words_of_a_kind_by_their_first_number_and_then_the_next(name, nearest):
    known = ["bar", "on-64/1", "on-65/4", "60-64", "60-64-67", "72-64", "on-40/2"]
    (place,) = nearest_places([name], known)
    assert (None if place < 0 else known[place]) == nearest
