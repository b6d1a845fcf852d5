"""--representation event through every command."""

import json
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
from small import piece_of, track_of

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.evaluation.music.excerpts import split_music
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Piece, notes_of
from lstm_music.midi.repair import merge_tracks
from lstm_music.runs.opened import open_run
from lstm_music.sampling import token_composers as token_composer
from lstm_music.tokenizers.events import AT, BAR_LINE, EventTokenizer, parse

HOW = ("--representation", "event", "--no-parts")
BAR = 1920


@pytest.fixture
def music(folder):
    """The small corpus in 3/4 after an upbeat."""
    for seed, path in enumerate(sorted((folder / "music").iterdir())):
        meter = np.array([[0, 480], [480, 1440]], np.int32)
        write_midi(Piece("", piece_of(seed, 2, 20).tracks, meter=meter), path)
    return sorted((folder / "music").iterdir())


@pytest.fixture
def run(music, train_small, folder):
    train_small("--max-steps", 30, *HOW, "--run", "e", "--quiet", "--transpose-augment", 2)
    return folder / "runs" / "e"


@pytest.fixture
def compose(ok, run):
    """Sample from the run; return the pieces."""
    return lambda *words: [read_midi(Path(p), p) for p in ok("sample", "e", "--quiet", *words)]


def end_of(piece):
    return max(int(track[-1, 0]) for track in piece.tracks)


def test_the_counts_of_a_corpus(music, ok):
    assert ok("corpus", "music", *HOW)[0] == "music, events of merged tracks"
    ok("corpus", "music", *HOW, "--json", "x.json", "--figure", "x.png")
    found = json.loads(Path("x.json").read_text())
    words = [EventTokenizer().words(read_midi(path, ""))[:-1] for path in music]
    assert found["tokens"] == sum(map(len, words))
    assert found["unique_tokens"] == len({word for piece in words for word in piece})
    bars = [[word for word in piece if word.startswith("bar")] for piece in words]
    assert all(piece[:3] == ["bar-480", "bar-1440", "bar"] for piece in bars)
    assert Path("x.png").stat().st_size > 1000


def test_what_only_others_have_is_refused(music, fails, run):
    for words, says in (
        (("train", "music", *HOW, "--min-count", 3), "--min-count is for messages"),
        (("train", "music", *HOW, "--grid", 7), "the grid must divide 1920, not be 7"),
        (("train", "music", *HOW, "--head", "nade"), "can't predict --representation event"),
        (("sample", "e", "--free"), "--free is only for models of messages"),
        (("sample", "e", "--restrike"), "this one writes events"),
    ):
        assert says in fails(*words)


def test_a_run_goes_on_and_is_judged(run, ok, train_small):
    ok("train", "--resume", "--run", "e", "--max-steps", 32, "--quiet")
    train_small("--max-steps", 1, "--tracks", "flatten", "--run", "m", "--quiet")
    ok("evaluate", "e", "m", "--json", "x.json")
    rows = json.loads(Path("x.json").read_text())
    names = ["e", "unigram", "untrained", "m", "unigram", "untrained"]
    assert [row["name"] for row in rows] == names
    assert rows[0]["notes"] == rows[3]["notes"]
    assert rows[0]["tokens"] > rows[3]["tokens"]
    assert rows[0]["nats_per_token"] < rows[2]["nats_per_token"]
    corpus = load_corpus("music", reading=Reading("event"))
    for name, notes in split_music(corpus, "train"):
        merged = merge_tracks(read_midi(Path("music") / name, ""))
        assert notes.tolist() == notes_of(merged).tolist()


def test_pieces_keep_their_length_alone_or_together(compose, run, monkeypatch):
    seen = []

    def spy(*args):
        seen.extend(made := sample(*args))
        return made

    sample = token_composer.sample_on_cpu
    monkeypatch.setattr(token_composer, "sample_on_cpu", spy)
    together = compose("--num", 5, "--bars", 3, "--temperature", 3)
    alone = compose("--bars", 3, "--temperature", 3)
    assert together[0].tracks[0].tolist() == alone[0].tracks[0].tolist()
    assert all(BAR < end_of(piece) <= 3 * BAR for piece in together)
    vocabulary = open_run("e", print)[0].vocabulary
    events = [parse(vocabulary.word(id)) for id in seen[0]]
    assert {kind for kind, *_ in filter(None, events)} == {0, 1, AT, BAR_LINE}
    seen.clear()
    compose("--num", 3, "--length", 77)
    assert [len(ids) for ids in seen] == [16 + 77] * 3
    assert compose("--greedy", "--length", 40)[0].tracks


def test_bars_are_written_as_they_are_composed(compose):
    (piece,) = compose("--primer-length", 64, "--length", 120, "--out", "x.mid")
    assert piece.meter[:2].tolist() == [[0, 480], [480, 1440]]
    signatures = [m for m in mido.MidiFile("x.mid").tracks[0] if m.type == "time_signature"]
    assert [(m.numerator, m.denominator) for m in signatures[:2]] == [(1, 4), (3, 4)]


def one_track(path):
    """The path of a file that holds the same music in one track."""
    piece = read_midi(path, "")
    merged = Piece("", [merge_tracks(piece)], meter=piece.meter, phrases=piece.phrases)
    write_midi(merged, "one.mid")
    return "one.mid"


def test_a_file_is_continued(compose, music, command, run):
    words = ("--primer-length", 100, "--length", 100, "--out", "x.mid")
    theirs = notes_of(merge_tracks(read_midi(music[0], "")))
    (ours,) = compose("--primer", one_track(music[0]), "--primer-start", *words)
    assert notes_of(ours.tracks[0])[:20].tolist() == theirs[:20].tolist()
    strange = track_of([(0, 480, 60), (485, 950, 127), (1925, 2400, 62)])
    write_midi(Piece("", [strange]), "strange.mid")
    done = command("sample", "e", "--primer", "strange.mid", "--length", 40, "--quiet")
    assert done.status == 0
    assert "tokens of strange.mid are new to the model: its nearest ones stand in" in done.err[0]
    first = notes_of(read_midi(Path(done.out[0]), "").tracks[0])
    assert first[:2, [0, 2]].tolist()[0] == [0, 60] and first[1, 2] == 62
    write_midi(Piece("", [track_of([(0, 480, 127)])]), "high.mid")
    done = command("sample", "e", "--primer", "high.mid", "--quiet")
    assert done.status == 2
    assert "the model knows none of the notes in 'high.mid'" in done.err[0]


def test_phrases_and_keys_are_learnt_and_composed(music, compose, train_small, ok, run):
    (plain,) = compose("--primer", one_track(music[0]), "--primer-start", "--length", 60)
    for path in music:
        piece = read_midi(path, "")
        write_midi(replace(piece, phrases=np.arange(960, end_of(piece), 960, np.int32)), path)
    train_small("--max-steps", 60, *HOW, "--common-key", "A", "--run", "k", "--quiet")
    words = ("--primer", one_track(music[0]), "--primer-start", "--length", 200, "--out", "k.mid")
    ok("sample", "k", "--quiet", *words)
    piece = read_midi(Path("k.mid"), "")
    known = read_midi(music[0], "").phrases
    assert piece.phrases[:3].tolist() == known[:3].tolist()
    assert len(piece.phrases) > 3 and piece.sharps is not None
    assert ok("evaluate", "k")  # its corpus is read again as it was
    # To a model that knows no phrases the same file is what it was.
    (again,) = compose("--primer", one_track(music[0]), "--primer-start", "--length", 60)
    assert again.tracks[0].tolist() == plain.tracks[0].tolist()
    assert not len(again.phrases)
