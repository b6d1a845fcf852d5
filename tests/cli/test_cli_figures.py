import shutil
from pathlib import Path

import mido
import pytest
from matplotlib.image import imread
from small import piece_of, write_midi

from lstm_music.rendering import figures, score
from lstm_music.runs.opened import bundled_model

MUSIC = ["model", "untrained", "chord-frequency"]


def expected(*names, folder="runs/a/figures"):
    """Paths of figures, in the order in which they are drawn."""
    kinds = ("png", "svg") if score.is_available() else ("png",)
    music = [f"{folder}/{title}.{kind}" for title in MUSIC for kind in kinds]
    return [f"{folder}/{name}.png" for name in names] + music


@pytest.mark.parametrize(
    "representation", [(), ("--representation", "chord"), ("--representation", "note")]
)
def test_every_figure_of_a_run(train_small, draw, representation):
    """A run that a corpus of five pitches made; its samples are no matter."""
    train_small("--max-steps", 5, "--run", "a", "--quiet", *representation)
    out, err = draw("a", "--quiet")
    assert out == expected("loss", "tokens", "embedding") and not err
    for path in out:
        assert Path(path).stat().st_size > 1000
        if path.endswith("png"):
            assert imread(path).std() > 0.02


@pytest.fixture
def run(train_small):
    train_small("--max-steps", 5, "--run", "a", "--quiet")


def test_numbers_stand_beside_the_files(run, draw):
    out, _ = draw("a")
    assert "rank correlation of distance with interval" in out[2] and "at most 0." in out[2]


def test_the_newest_run_and_another_folder(run, draw):
    assert draw("--out", "x", "--quiet")[0] == expected("loss", "tokens", "embedding", folder="x")


def test_the_same_seed_composes_the_same(run, draw):
    for seed, out in ((1, "x"), (1, "y"), (2, "z")):
        draw("a", "--seed", seed, "--out", out, "--quiet")
    x, y, z = (Path(f"{name}/chord-frequency.png").read_bytes() for name in "xyz")
    assert x == y != z


def test_what_cannot_be_drawn_is_left_out_and_named(run, draw):
    shutil.rmtree("music")
    out, err = draw("a", "--quiet")
    gone = [path for path in expected("tokens") if "tokens" in path or "frequency" in path]
    assert not set(gone) & set(out) and "runs/a/figures/embedding.png" in out
    assert len(err) == len(gone)
    assert all("is left out" in line for line in err)


@pytest.mark.usefixtures("folder")
def test_the_bundled_model_is_of_a_corpus_that_is_there(draw, monkeypatch):
    monkeypatch.setattr(figures, "token_frequency", lambda corpus, to: to.write_text(corpus.name))
    out, err = draw("--quiet")
    assert out == expected("tokens", "embedding", folder="figures") and not err
    assert Path("figures/tokens.png").read_text() == "bach"
    assert bundled_model().is_dir()


def test_a_midi_file_with_the_velocities_it_has(draw, monkeypatch):
    write_midi(piece_of(3), "piece.mid", velocity=33)
    midi = mido.MidiFile("piece.mid")
    drawn = []
    monkeypatch.setattr(
        figures, "piano_roll", lambda *given: drawn.append(given) or given[1].touch()
    )
    out, err = draw("piece.mid", "--quiet")
    assert out[0] == "figures/piece.png" and not err
    ((piece, _),) = drawn
    velocities = piece.velocities
    assert Path(out[0]).is_file() and len(piece.tracks) == len(velocities) == len(midi.tracks) - 1
    assert {int(v) for track in velocities for v in track} == {33}


def test_bad_input_is_one_line(fails):
    Path("bad.mid").write_text("no music")
    for words, says in (
        (["x"], "no run or checkpoint 'x'"),
        (["x.mid"], "no file 'x.mid'"),
        (["bad.mid"], "'bad.mid' is no MIDI file"),
        (["--perplexity", "0"], "is not a number from 1"),
    ):
        assert says in fails("figures", *words)


def test_a_corpus_draws_how_often_its_tokens_occur(ok):
    lines = ok("corpus", "music", "--figure", "tokens.png")
    assert lines == ok("corpus", "music")
    assert imread("tokens.png").std() > 0.02
