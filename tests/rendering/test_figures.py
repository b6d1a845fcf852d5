import csv
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from small import piece_of, small_corpus, small_rolls, small_trainer, track_of

from lstm_music.errors import UserError
from lstm_music.midi.piece import Part, Piece
from lstm_music.rendering import figures
from lstm_music.runs.checkpoint import CHECKPOINTS, read_checkpoint


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Call a figure with a path for it; return its axes, once the file is seen to be whole."""
    kept = []
    save = figures.save

    def spy(figure, axes, path):
        save(figure, axes, path)
        kept.append((figure, axes, path))

    monkeypatch.setattr(figures, "save", spy)

    def call(draw, *args, **settings):
        path = tmp_path / "figure.png"
        draw(*args, path, **settings)
        figure, axes, saved = kept.pop()
        assert saved == path
        pixels = imread(path)
        size = np.array(pixels.shape[1::-1])
        assert (np.abs(size - figure.get_size_inches() * figures.DPI) <= 1).all()
        assert pixels.std() > 0.02  # something is on it
        assert isinstance(figure, Figure)
        return axes

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of a small model."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = small_trainer(small_corpus(folder), folder / "run", epochs=1)
    trainer.train()
    return read_checkpoint(folder / "run" / CHECKPOINTS / "latest")


# A piece


def boxes_of(axes):
    return [
        (path.vertices[0][0], path.vertices[1][0], round(path.vertices[:-1, 1].mean()), *colour)
        for collection in axes.collections
        for path, colour in zip(collection.get_paths(), collection.get_facecolor(), strict=True)
    ]


def test_a_piano_roll_has_a_box_a_note_in_bars_and_a_colour_a_track(drawn):
    piece = Piece("two", [track_of([(0, 960, 60)]), track_of([(1920, 3840, 48)])])
    axes = drawn(figures.piano_roll, piece)
    first, second = boxes_of(axes)
    assert first[:3] == (0, 0.5, 60) and second[:3] == (1, 2, 48)
    assert first[3:6] != second[3:6]
    assert axes.get_xlabel() == "bars" and axes.get_title() == "two"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["C3", "G3", "C4"]


def test_bar_lines_of_a_piano_roll_are_those_of_the_meter(drawn):
    meter = np.array([(0, 480), (480, 1920), (2400, 1440)], np.int32)
    axes = drawn(figures.piano_roll, Piece("p", [track_of([(0, 5000, 60)])], meter=meter))
    assert (axes.get_xticks() * 1920).tolist() == [0, 480, 2400, 3840, 5280]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "3", "4"]
    assert axes.get_xlim() == (0, 5280 / 1920)


def test_soft_notes_are_fainter(drawn):
    piece = Piece("p", [track_of([(0, 480, 60), (480, 960, 62), (960, 1440, 64)])])
    axes = drawn(figures.piano_roll, replace(piece, velocities=(np.array([1, 64, 127]),)))
    opaque = [box[-1] for box in boxes_of(axes)]
    assert opaque == sorted(set(opaque)) and opaque[-1] == 1 and opaque[0] > 0.2
    plain = drawn(figures.piano_roll, piece)
    assert {box[-1] for box in boxes_of(plain)} == {1}


def band(n, name="Part {}"):
    """A piece of n parts, a note each."""
    tracks = [track_of([(240 * k, 240 * k + 1920, 40 + k % 48)]) for k in range(n)]
    return Piece("band", tracks, parts=tuple(Part(name.format(k + 1), k % 128) for k in range(n)))


def looks_of(axes):
    """The colour and hatching of each part's notes, and those of the legend by name."""
    notes = [(tuple(c.get_facecolor()[0]), c.get_hatch() or "") for c in axes.collections]
    legend = axes.get_legend()
    if legend is None:
        return notes, None
    named = zip(legend.get_texts(), legend.get_patches(), strict=True)
    return notes, {t.get_text(): (p.get_facecolor(), p.get_hatch() or "") for t, p in named}


def test_a_legend_has_the_names_of_the_parts_and_how_they_look(drawn):
    piece = band(25)
    piece = replace(piece, parts=(Part("a\x07 $b$\n"), Part(""), *piece.parts[2:]))
    notes, legend = looks_of(drawn(figures.piano_roll, piece))
    assert [*legend] == ["a $b$", "part 2", *(f"Part {n}" for n in range(3, 26))]
    assert [*legend.values()] == notes
    assert len({*notes}) == 25


def test_no_two_colours_of_parts_look_alike_to_the_colour_blind():
    """By the matrices of Machado et al. 2009, each cone missing; distances of CIELAB."""
    from matplotlib.colors import to_rgb

    missing = {
        "protan": (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882,
                   -0.048116, 1.051998),
        "deutan": (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820,
                   0.042940, 0.968881),
        "tritan": (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733,
                   0.691367, 0.303900),
    }  # fmt: skip
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    srgb = np.array([to_rgb(colour) for colour in (*figures.PARTS, "white")])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for matrix in (np.eye(3), *(np.reshape(numbers, (3, 3)) for numbers in missing.values())):
        xyz = np.clip(linear @ matrix.T, 0, 1) @ to_xyz.T / [0.9505, 1, 1.089]
        f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
        lab = np.stack(
            [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1
        )
        apart = np.linalg.norm(lab[:, None] - lab, axis=-1)
        assert apart[~np.eye(len(lab), dtype=bool)].min() > 8


@pytest.mark.parametrize("piece", [band(1), band(3, ""), replace(band(3), parts=())])
def test_no_legend_without_names(drawn, piece):
    notes, legend = looks_of(drawn(figures.piano_roll, piece))
    assert legend is None and notes[0][0][:3] == (
        0,
        pytest.approx(0x72 / 255),
        pytest.approx(0xB2 / 255),
    )


def test_a_legend_of_an_army_stays_a_legend(drawn):
    _, legend = looks_of(drawn(figures.piano_roll, band(100)))
    assert len(legend) == 61 and [*legend][-1] == "and 40 more"


def test_silence_can_be_drawn(drawn):
    assert boxes_of(drawn(figures.piano_roll, Piece("rest", []))) == []


# A corpus


@pytest.mark.parametrize("layout", ["flatten", "merge"])
def test_token_frequency_counts_what_the_corpus_counts(drawn, tmp_path, layout):
    corpus = small_corpus(tmp_path, layout)
    counts = figures.token_counts(corpus)
    summary = corpus.summary()
    assert (counts.total(), len(counts)) == (summary["tokens"], summary["unique_tokens"])
    axes = drawn(figures.token_frequency, corpus)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    occurrences = axes.lines[0].get_ydata()
    assert (np.diff(occurrences) <= 0).all()
    assert occurrences.sum() == summary["tokens"]


@pytest.mark.parametrize("representation", ["chord", "note"])
def test_frames_are_counted_as_chords(drawn, tmp_path, representation):
    corpus = small_rolls(tmp_path, representation)
    counts = figures.token_counts(corpus)
    summary = corpus.summary()
    assert (counts.total(), len(counts)) == (summary["tokens"], summary["unique_tokens"])
    drawn(figures.token_frequency, corpus)


# A run


def row(step, split, loss, rate):
    return {"step": str(step), "split": split, "loss": str(loss), "learning_rate": str(rate)}


ROWS = [
    row(10, "train", 3.0, 0.01), row(10, "valid", 2.9, 0.01),
    row(20, "train", 2.5, 0.01), row(20, "valid", 2.4, 0.01),
    row(30, "train", 2.4, 0.005), row(30, "valid", 2.45, 0.005),
    row(40, "train", 2.3, 0.0025), row(40, "valid", 2.6, 0.0025),
]  # fmt: skip


def test_annealings_stand_where_the_rate_fell():
    assert figures.annealings(ROWS) == [(20, 0.005), (30, 0.0025)]


def test_loss_curves_show_both_splits_the_best_and_the_annealings(drawn):
    axes = drawn(figures.loss_curves, ROWS)
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["training, with dropout"] == [[10, 3.0], [20, 2.5], [30, 2.4], [40, 2.3]]
    assert lines["validation"] == [[10, 2.9], [20, 2.4], [30, 2.45], [40, 2.6]]
    assert lines["best: 2.4000"] == [[20, 2.4]]
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert marks == [20, 30]
    assert [text.get_text() for text in axes.texts] == ["0.005", "0.0025"]


def test_loss_curves_of_a_run_and_of_nothing(drawn, tmp_path):
    trainer = small_trainer(small_corpus(tmp_path), tmp_path / "run", epochs=2)
    trainer.train()
    with (tmp_path / "run" / "metrics.csv").open() as file:
        axes = drawn(figures.loss_curves, list(csv.DictReader(file)))
    assert len(axes.lines) == 3
    assert drawn(lambda path: figures.loss_curves([], path, "none")).get_title() == "none"


def test_losses_of_two_runs_are_drawn_by_epoch(drawn):
    one = {"train": [(1, 3.0), (2, 2.5)], "valid": [(1, 3.1), (2, 2.9)]}
    axes = drawn(lambda path: figures.compared_losses({"a": one, "b": {"valid": [(0.5, 4)]}}, path))
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["a, training", "a, validation", "b, validation"]
    assert lines["a, training"].get_xydata().tolist() == [[1, 3.0], [2, 2.5]]
    assert lines["a, training"].get_color() == lines["a, validation"].get_color()
    assert lines["b, validation"].get_color() != lines["a, validation"].get_color()
    assert axes.get_xlabel() == "epochs"


# An embedding: see also test_embeddings.py


def test_an_embedding_map_has_a_mark_and_a_name_for_each_pitch(drawn, trained):
    axes = drawn(lambda path: figures.embedding_map(trained, path, seed=3))
    circles, crosses = (c for c in axes.collections if len(c.get_offsets()))
    assert len(circles.get_offsets()) + len(crosses.get_offsets()) == len(axes.texts)
    assert "seed 3" in axes.get_title() and "perplexity" in axes.get_title()
    assert (circles.get_array().max(), circles.get_array().min()) == (67, 48)


def test_the_same_seed_draws_the_same_map(trained, tmp_path):
    for name in "ab":
        figures.embedding_map(trained, tmp_path / name, seed=1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_piece_of_small_is_drawable(drawn):
    drawn(figures.piano_roll, piece_of(1, tracks=8))


def test_too_few_pitches_are_refused(trained, tmp_path):
    words = trained.vocabulary.words[:3]
    few = trained._replace(vocabulary=type(trained.vocabulary)(words))
    with pytest.raises(UserError, match="fewer than 5"):
        figures.embedding_map(few, tmp_path / "x.png")
