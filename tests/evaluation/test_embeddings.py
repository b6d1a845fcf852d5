import numpy as np
import pytest

from lstm_music.errors import UserError
from lstm_music.evaluation.embeddings import (
    Points,
    fitting_perplexity,
    order_of,
    pitch_points,
    separation_of,
    tsne,
)
from lstm_music.midi.roll import LOWEST, NOTES
from lstm_music.network.config import Config
from lstm_music.network.model import Model, init_parameters
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.tokenizers.messages import word_parts
from lstm_music.tokenizers.vocabulary import Vocabulary


def checkpoint_of(words, representation, moved=(), shrunk=1.0, head=None):
    """A model before training but for the rows `moved`, all shrunk as by weight decay."""
    head = head or ("sigmoid" if representation == "note" else "softmax")
    config = Config(len(words) or NOTES, 8, 8, head=head)
    parameters = Model(config, get_ops("numpy"), 7).parameters
    parameters = {name: value.copy() for name, value in parameters.items()}
    parameters["embedding.W"] *= shrunk
    for row in moved:
        parameters["embedding.W"][row, 0] += 1
    meta = {"tokenizer": {"name": representation}, "settings": {"seed": 7}}
    return Checkpoint(None, meta, config, Vocabulary(words), parameters)


MESSAGES = [
    "piece-end",
    "track-end",
    *(f"note-on-{p}-0" for p in range(60, 72)),
    *(f"note-off-{p}-60" for p in range(60, 72)),
    *(f"note-off-{p}-0" for p in range(60, 68)),
    *(f"note-on-{p}-60" for p in range(60, 65)),
]


def test_messages_of_the_duration_that_most_pitches_have_in_both_kinds():
    points = pitch_points(checkpoint_of(MESSAGES, "message"))
    assert points.what == "messages 0 ticks after the last"
    assert points.pitches[points.ons].tolist() == list(range(60, 72))
    assert points.pitches[~points.ons].tolist() == list(range(60, 68))


def test_messages_of_the_papers_duration_where_there_are_enough():
    words = [*MESSAGES, *(f"note-on-{p}-60" for p in range(65, 75))]
    points = pitch_points(checkpoint_of(words, "message"))
    assert points.what == "messages 60 ticks after the last"
    assert points.pitches[~points.ons].tolist() == list(range(60, 72))


@pytest.mark.parametrize("shrunk", [1.0, 0.3])
def test_only_rows_that_training_moved(shrunk):
    rows = [MESSAGES.index(f"note-on-{p}-0") for p in (60, 61, 63, 66, 70)]
    points = pitch_points(checkpoint_of(MESSAGES, "message", moved=rows, shrunk=shrunk))
    assert points.pitches.tolist() == [60, 61, 63, 66, 70]


def test_messages_of_a_factored_model_are_classes():
    """Its durations have rows of their own, so that a pitch has one row a kind."""
    vocabulary = Vocabulary(MESSAGES)
    classes, deltas = word_parts(vocabulary)
    counts = {"classes": int(classes.max()) + 1, "deltas": int(deltas.max()) + 1}
    config = Config(len(MESSAGES), 8, 8, head="factored", **counts)
    parameters = init_parameters(config, get_ops("numpy"), 7)
    before = Checkpoint(None, {"tokenizer": {"name": "message"}}, config, vocabulary, parameters)
    points = pitch_points(before)
    assert points.what == "notes on and off"
    assert points.pitches[points.ons].tolist() == list(range(60, 72))
    assert points.pitches[~points.ons].tolist() == list(range(60, 72))
    row = classes[MESSAGES.index("note-on-60-60")]
    np.testing.assert_array_equal(points.vectors[1], parameters["embedding.Wc"][row])
    moved = {name: value.copy() for name, value in parameters.items()}
    rows = [classes[MESSAGES.index(f"note-on-{p}-0")] for p in range(60, 66)]
    moved["embedding.Wc"][rows, 0] += 1
    trained = before._replace(parameters=moved, meta=before.meta | {"settings": {"seed": 7}})
    assert pitch_points(trained).pitches.tolist() == list(range(60, 66))


def test_events_that_have_a_pitch():
    words = ["piece-end", "on-64", "on-60", "at-60", "bar-61", "on-62", "off-65", "off-60"]
    points = pitch_points(checkpoint_of(words, "event"))
    assert points.what == "note-ons and note-offs"
    assert points.pitches[points.ons].tolist() == [60, 62, 64]
    assert points.pitches[~points.ons].tolist() == [60, 65]


def test_words_of_performances_that_have_a_pitch():
    words = ["piece-end", "on-64", "on-60", "shift-60", "velocity-9", "on-62", "off-65", "off-60"]
    points = pitch_points(checkpoint_of(words, "performance"))
    assert points.pitches[points.ons].tolist() == [60, 62, 64]
    assert points.pitches[~points.ons].tolist() == [60, 65]


def test_chords_of_one_note():
    words = ["piece-end", "rest", "60-64", "67", "65", "60", "62", "64", "60-64-67"]
    checkpoint = checkpoint_of(words, "chord")
    points = pitch_points(checkpoint)
    assert points.pitches.tolist() == [60, 62, 64, 65, 67]
    W = checkpoint.parameters["embedding.W"]
    assert np.array_equal(points.vectors, W[[5, 6, 7, 4, 3]])


def test_notes():
    points = pitch_points(checkpoint_of([], "note"))
    assert points.pitches.tolist() == list(range(LOWEST, LOWEST + NOTES))
    assert points.ons.all()


def test_notes_of_a_biaxial_network_are_what_tells_them_apart():
    """Its other rows are the notes around one; before training it tells none apart."""
    checkpoint = checkpoint_of([], "note", head="biaxial")
    with pytest.raises(UserError, match="train it"):
        pitch_points(checkpoint)
    table = checkpoint.parameters["embedding.pitch"]
    table[:] = np.random.default_rng(1).normal(size=table.shape)
    points = pitch_points(checkpoint)
    assert points.pitches.tolist() == list(range(LOWEST, LOWEST + NOTES))
    np.testing.assert_array_equal(points.vectors, table.astype(np.float64))


def points_on(places, pitches, ons):
    return Points(np.array(places, float), np.array(pitches), np.array(ons), "points")


def test_pitches_on_a_line_are_in_perfect_order_and_shuffled_ones_in_none():
    pitches = list(range(50, 70))
    line = points_on([[2.0 * p, 1] for p in pitches], pitches, [True] * 20)
    order = order_of(line)
    assert order.rho == pytest.approx(1)
    assert abs(order.shuffled_mean) < 0.02 and 0.05 < order.shuffled_max < 0.6


def test_kinds_are_compared_each_within_itself():
    """Note-offs lie far from note-ons, whose order tells nothing about that."""
    pitches = [*range(50, 60), *range(50, 60)]
    places = [[p, 0] for p in range(10)] + [[p, 1000] for p in range(10)]
    order = order_of(points_on(places, pitches, [True] * 10 + [False] * 10))
    assert order.rho == pytest.approx(1)


def test_order_is_scipys_spearman():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(5)
    vectors, pitches = rng.normal(size=(12, 4)), rng.permutation(40)[:12] + 40
    i, j = np.triu_indices(12, 1)
    near = np.linalg.norm(vectors[i] - vectors[j], axis=1)
    expected = spearmanr(near, np.abs(pitches[i] - pitches[j])).statistic
    order = order_of(points_on(vectors, pitches, [True] * 12))
    assert order.rho == pytest.approx(expected)
    assert order == order_of(points_on(vectors, pitches, [True] * 12))


def test_kinds_that_lie_apart_and_kinds_that_do_not():
    pitches = [*range(50, 70), *range(50, 70)]
    ons = [True] * 20 + [False] * 20
    apart = [[p, 0] for p in range(20)] + [[p, 1000] for p in range(20)]
    found = separation_of(points_on(apart, pitches, ons))
    assert found.share == 1 and 0.4 < found.shuffled_mean < 0.55 and found.shuffled_max < 1
    mixed = [[9 * p, 0] for p in range(20)] + [[9 * p + 1, 0] for p in range(20)]
    found = separation_of(points_on(mixed, pitches, ons))  # each note's on and off side by side
    assert found.share == 0 and found.shuffled_mean > 0.3
    assert separation_of(points_on(apart, pitches, [True] * 40)) is None


def test_a_share_of_kinds_that_are_mixed_is_counted():
    """Of 6 rows on a line, the two in the middle are nearest to one of the other kind."""
    places = [[0, 0], [1, 0], [5, 0], [5.5, 0], [10, 0], [11, 0]]
    ons = [True, True, True, False, False, False]
    assert separation_of(points_on(places, range(60, 66), ons)).share == pytest.approx(4 / 6)


def test_tsne_keeps_two_clusters_apart():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(20, 5)) * 0.01 + np.repeat([[0] * 5, [9] * 5], 10, axis=0)
    places = tsne(vectors, seed=0, perplexity=fitting_perplexity(10, 20))
    within = np.linalg.norm(places[:10] - places[:10].mean(axis=0), axis=1).max()
    assert np.linalg.norm(places[:10].mean(axis=0) - places[10:].mean(axis=0)) > 2 * within
