"""--representation performance through every command."""

import json
import re
from pathlib import Path

import mido
import numpy as np
import pytest
from played import played_file
from small import COMPUTE

from lstm_music.cli import sample, train
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.evaluation.music.excerpts import split_music
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import notes_of
from lstm_music.runs.opened import open_run
from lstm_music.tokenizers.performance import BIN, PerformanceTokenizer, performed

HOW = ("--representation", "performance")
SIZES = ("--hidden", "8", "--embedding", "8", "--batch", "3", "--seq", "50")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small corpus of recordings, with pedal and tempo changes, and a run of it."""
    place = tmp_path_factory.mktemp("played")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(place / "cache"))
        patch.chdir(place)
        Path("music").mkdir()
        for seed in range(8):
            Path(f"music/{seed}.mid").write_bytes(played_file(seed, 40)[0])
        words = (*HOW, "--run", "p", "--max-steps", "40", "--transpose-augment", "2", "--quiet")
        assert train.main(["music", *words, *SIZES, *COMPUTE]) == 0
    return place


@pytest.fixture(autouse=True)
def music(place, folder, monkeypatch):
    """Be there; return the recordings."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)
    return sorted(Path("music").iterdir())


def read(path):
    return read_midi(Path(path), "x", played=True)


def test_the_counts_of_a_corpus(music, ok):
    assert ok("corpus", "music", *HOW, "--json", "x.json", "--figure", "x.png")[0] == (
        "music, performances of merged tracks"
    )
    found = json.loads(Path("x.json").read_text())
    words = [PerformanceTokenizer().words(read(path))[:-1] for path in music]
    assert found["tokens"] == sum(map(len, words))
    assert found["unique_tokens"] == len({word for piece in words for word in piece})


def test_a_corpus_keeps_what_was_played_and_its_habits(music):
    corpus = load_corpus("music", reading=Reading("performance"))
    tracks = [performed(read(path)) for path in music]
    for number, (track, loud) in enumerate(tracks):
        again = corpus.decoded(number)
        assert again.tracks[0].tolist() == track.tolist()
        assert (again.velocities[0] // BIN).tolist() == (loud // BIN).tolist()
    pauses = [int(np.diff(track[:, 0]).max()) for track, _ in tracks]
    assert corpus.habits()["longest_pause"] == max(pauses)
    assert "longest_pause" not in load_corpus("music").habits()
    for (_, notes), number in zip(split_music(corpus, "test"), corpus.splits["test"], strict=True):
        assert notes.tolist() == notes_of(tracks[number][0]).tolist()


def test_what_only_others_have_is_refused(fails):
    for words, says in (
        (("train", "music", *HOW, "--min-count", 3), "--min-count is for messages"),
        (("train", "music", *HOW, "--grid", 16), "--grid isn't for performances"),
        (("train", "music", *HOW, "--common-key", "A"), "isn't for performances"),
        (("train", "music", *HOW, "--head", "factored"), "can't predict --representation perf"),
        (("sample", "p", "--free"), "performances out of order mean nothing"),
        (("sample", "p", "--restrike"), "this one writes performances"),
        (("sample", "p", "--bars", 4), "--bars counts bars, and a performance has none"),
    ):
        assert says in fails(*words)


def test_a_run_is_judged_by_notes_and_seconds(command):
    how = ("--representation", "message", "--max-steps", 1, "--run", "m", "--quiet")
    assert command("train", "music", *how).status == 0
    lines = command("evaluate", "p", "m", "--json", "x.json").out
    heads = [head.strip() for head in lines[0].split("  ") if head.strip()]
    assert heads == ["test", "nats per token", "nats per note", "nats per second", "tokens"]
    rows = json.loads(Path("x.json").read_text())
    ours, theirs = rows[0], rows[3]
    assert ours["notes"] == theirs["notes"]
    nats = ours["nats_per_token"] * ours["tokens"]
    corpus = load_corpus("music", reading=Reading("performance"))
    played = [performed(read(f"music/{corpus.pieces[p]}"))[0] for p in corpus.splits["test"]]
    seconds = sum(int(track[-1, 0]) for track in played) / 1000
    assert ours["seconds"] == pytest.approx(seconds)
    assert ours["nats_per_second"] == pytest.approx(nats / seconds)
    assert "nats_per_second" not in theirs


def sampled(capsys, backend, *words):
    """The paths of what the run composes with a backend."""
    words = [str(word) for word in words]
    assert sample.main(["p", *words, "--quiet", "--backend", backend, "--threads", "1"]) == 0
    return capsys.readouterr().out.splitlines()


def seconds_of(path):
    """When the last note of a file ends, as a player of it hears."""
    return max(int(track[-1, 0]) for track in read(path).tracks) / 1000


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_seconds_are_those_heard_whatever_the_tempo(capsys, backend):
    """Beyond the primer, which is none here."""
    asked = ("--seconds", 8, "--primer-length", 0, "--num", 3, "--temperature", 2)
    found = {}
    for tempo in (None, 60, 250):
        words = () if tempo is None else ("--tempo", tempo)
        paths = sampled(capsys, backend, *asked, *words)
        found[tempo] = [seconds_of(path) for path in paths]
        assert all(4 < seconds <= 8.001 for seconds in found[tempo]), tempo
        (told,) = {m.tempo for m in mido.MidiFile(paths[0]).tracks[0] if m.type == "set_tempo"}
        assert told == round(60e6 / (tempo or 125))


def test_what_comes_out_has_dynamics(capsys):
    """By a seed the same from NumPy and from Numba."""
    asked = ("--seconds", 20, "--temperature", 2)
    made = [
        read(sampled(capsys, backend, *asked)[0]).notes.tolist() for backend in ("numpy", "numba")
    ]
    assert made[0] == made[1]
    velocities = {velocity for *_, velocity, _ in made[0]}
    assert len(velocities) > 10
    assert {velocity % BIN for velocity in velocities} == {BIN // 2}


def test_a_primer_is_read_as_it_was_played(command):
    path = "music/3.mid"
    primer = ("--primer", path, "--primer-start", "--primer-length", 60)
    done = command("sample", "p", *primer, "--quiet", "--out", "x.mid")
    assert done.status == 0
    track, loud = performed(read(path))
    ours, as_loud = performed(read("x.mid"))
    theirs = [note for note in notes_of(track).tolist() if note[0] < 1500]
    assert len(theirs) > 4
    starts = [[note[0], note[2]] for note in notes_of(ours).tolist()]
    assert starts[: len(theirs)] == [[start, pitch] for start, _, pitch in theirs]
    assert (as_loud // BIN)[: len(theirs)].tolist() == (loud // BIN)[: len(theirs)].tolist()


def test_without_its_primer_a_performance_goes_on_at_once(command):
    """There are no bars whose line is to be waited for."""
    words = ("--primer", "music/3.mid", "--seconds", 1.5, "--out", "x.mid")
    new = [
        re.search(r"(\d+) new", command("sample", "p", *words, *more).out[0])[1]
        for more in ((), ("--without-primer",))
    ]
    assert new[0] == new[1] == str(len(read("x.mid").notes)) != "0"


def test_notes_that_a_model_never_saw_are_left_out(command):
    path = Path("other.mid")
    piece = read("music/0.mid")
    piece.tracks[0][:, 2] += 60
    for track in piece.tracks:
        track[:, 0] += 5000  # of silence, of which there is no word
    write_midi(piece, path)
    done = command("sample", "p", "--primer", path, "--seconds", 2, "--out", "x.mid")
    assert done.status == 0
    assert any("are new to the model" in said for said in done.err)
    assert not any("loud" in said for said in done.err)


def test_a_piece_keeps_its_dynamics_where_another_follows(command):
    paths = command("sample", "p", "--length", 900, "--temperature", 3, "--quiet").out
    piece = read(paths[0])
    assert len({int(velocity) for velocity in piece.notes["velocity"]}) > 10


def test_a_checkpoint_tells_the_longest_pause():
    checkpoint, _ = open_run("p", print)
    assert checkpoint.meta["corpus"]["longest_pause"] > 0
    assert checkpoint.meta["tokenizer"] == {"name": "performance", "layout": "merge"}


@pytest.mark.slow
def test_a_report_plays_a_performance_at_its_own_tempo(command):
    done = command("report", "p", "--num", 1)
    assert done.status == 0
    page = next(Path("runs/p").glob("*.html")).read_text("utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0].replace("<\\/", "</"))
    assert {sample["tempo"] for sample in data["samples"]} == {125}
    assert [model["tempo"] for model in data["models"]] == [125]
    assert "notes as they were played" in page
