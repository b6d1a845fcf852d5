"""bin/listen: making a study of runs, files and a control, exporting, importing, results."""

import io
import json
import sys
from types import SimpleNamespace

import mido
import numpy as np
import pytest
from scipy.io import savemat
from small import piece_of, write_music

from listening import put_ratings, small_study, tone
from lstm_music.cli import listen
from lstm_music.cli.common import run
from lstm_music.corpus.load import load_corpus
from lstm_music.errors import UserError
from lstm_music.listening import making
from lstm_music.listening.study import Study
from lstm_music.midi.files import write_midi

QUIET = ["--quiet", "--backend", "numpy"]


@pytest.fixture
def sources(tmp_path):
    write_midi(piece_of(1, notes=30), tmp_path / "piece.mid")
    (tmp_path / "take.wav").write_bytes(tone(4))
    write_music(tmp_path / "folder", pieces=4, notes=30)
    return tmp_path


def made(folder, *words):
    """The study that bin/listen makes to export."""
    db = ["--db", str(folder / "s.sqlite"), "--export", str(folder / "page")]
    assert listen.main([*words, *db, "--seconds", "2", *QUIET]) == 0
    return Study(folder / "s.sqlite")


def test_a_study_of_everything(sources, capsys):
    words = ["bach", "mine=" + str(sources / "piece.mid"), str(sources / "take.wav")]
    words += [str(sources / "folder"), "--control", "bach", "--num", "2", "--repeat", "1"]
    study = made(sources, *words)
    counts = {}
    for clip in study.clips:
        counts[clip.system] = counts.get(clip.system, 0) + 1
    assert counts == {"bach": 2, "mine": 1, "take": 1, "folder": 2, "people": 2}
    assert [c.system for c in study.clips if c.control] == ["people"] * 2
    assert study.seconds == 2 and study.repeats == 1
    assert len({len(study.sound(c.id)) for c in study.clips}) == 1
    assert len({study.sound(c.id) for c in study.clips}) == len(study.clips)
    assert capsys.readouterr().out == f"{sources / 'page' / 'index.html'}\n"
    again = ["--db", str(study.path), "--export", str(sources / "again"), "--quiet"]
    assert listen.main(again) == 0  # the same study, from its file alone
    assert (sources / "again" / "index.html").read_text() == (
        sources / "page" / "index.html"
    ).read_text()


def test_a_blind_set_of_every_system_is_made_and_opens_without_a_name_in_it(tmp_path, capsys):
    words = ["bach", "--baselines", "--control", "bach", "--num", "2", "--make-only"]
    db = tmp_path / "set.sqlite"
    assert listen.main([*words, "--db", str(db), "--seconds", "2", *QUIET]) == 0
    assert capsys.readouterr().out == f"{db}\n"  # and it returned: nothing is served
    study = Study(db)
    systems = [clip.system for clip in study.clips]
    made = ["bach", "untrained", "chord-frequency", "people"]
    assert systems == [system for system in made for _ in range(2)]
    assert len({study.sound(clip.id) for clip in study.clips}) == 8
    pytest.importorskip("flask", reason="the extra 'listen' is not installed")
    from lstm_music.listening.server import make_app

    client = make_app(study).test_client()
    who = {"X-Rater": client.post("/api/begin", json={"consent": True}).json["rater"]}
    pages = ("/", "/listen.js", "/server.js", "/api/study", "/api/session", "/api/clip/0")
    answers = [client.get(path, headers=who) for path in pages]
    assert [answer.status_code for answer in answers] == [200] * 6
    told = b"".join(answer.data + str(answer.headers).encode() for answer in answers)
    names = {*made, *(clip.name for clip in study.clips)}
    assert not [name for name in names - {"people"} if name.encode() in told]
    assert study.sound(study.order(0)[0].id) == answers[-1].data


def test_a_study_is_played_at_the_tempo_of_the_first_run_that_says_one(monkeypatch):
    """What people wrote beside it too, or they would be told apart by that."""
    played = []

    def play(system, name, midi):
        played.append(midi)
        return SimpleNamespace(system=system, name=name)

    monkeypatch.setattr(making.clips, "from_midi", play)
    monkeypatch.setattr(making.clips, "alike", lambda sounds, *_: ([b""] * len(sounds), 1.0, 0))
    opened = making.open_run

    def told(name, warn):
        checkpoint, folder = opened(name, warn)
        corpus = checkpoint.meta["corpus"] | ({"tempo": 150.0} if name == "jsb" else {})
        return checkpoint._replace(meta=checkpoint.meta | {"corpus": corpus}), folder

    monkeypatch.setattr(making, "open_run", told)
    control = listen.named("bach")._replace(control=True)
    for names, tempo in ((("bach", "jsb"), 96), (("jsb", "bach"), 150)):
        played.clear()
        wanted = [*map(listen.named, names), control]
        making.clips_of(wanted, making.Asked(2, 4.0, 0, "numpy", print), lambda *_: None)
        assert len(played) == 2 * len(wanted)
        for midi in played:
            first = mido.MidiFile(file=io.BytesIO(midi)).tracks[0]
            assert [m.tempo for m in first if m.type == "set_tempo"] == [round(60e6 / tempo)]


def test_a_control_of_any_corpus_is_held_out_music(tmp_path):
    rng = np.random.default_rng(0)
    splits = {
        name: [rng.integers(0, 2, (64, 88)).astype(np.uint8) * (np.arange(88) % 9 == k)
               for k in range(n)]
        for name, n in (("traindata", 4), ("validdata", 2), ("testdata", 2))
    }  # fmt: skip
    cells = {}
    for name, rolls in splits.items():
        cells[name] = np.empty((1, len(rolls)), object)
        cells[name][0, :] = rolls
    savemat(tmp_path / "rolls.mat", cells)
    asked = making.Asked(5, 2.0, 0, "numpy", print)
    pieces = making.human(str(tmp_path / "rolls.mat"), asked)
    assert sorted(piece.name for piece in pieces) == ["test-1", "test-2"]
    corpus = load_corpus("bach")
    held_out = {corpus.pieces[p] for p in corpus.splits["test"]}
    pieces = making.human("bach", asked)
    assert len(pieces) == 5 and {piece.name for piece in pieces} <= held_out


def test_ratings_come_back_and_are_told(sources, capsys):
    study = made(sources, str(sources / "piece.mid"), str(sources / "take.wav"))
    order = study.order(0)
    ratings = [
        {"clip": clip.id, "score": score, "heard": 2.0, "at": 9.0}
        for clip, score in zip(order, (3, 8), strict=True)
    ]
    given = {
        "format": 1, "study": study.id, "rater": "0f" * 16, "row": 0, "begun": 1.0,
        "comment": "", "ratings": ratings,
    }  # fmt: skip
    path = sources / "r.json"
    path.write_text(json.dumps(given))
    words = ["--db", str(study.path), "--import", str(path), str(path)]
    capsys.readouterr()
    assert listen.main(words) == 0
    assert capsys.readouterr().out == "1 raters added, 1 were there before\n"
    assert listen.main(["--results", str(study.path)]) == 0
    shown = capsys.readouterr().out
    assert "1 raters count" in shown and str(study.path.with_suffix(".html")) in shown
    told = json.loads(study.path.with_suffix(".json").read_text())
    assert told["raters"] == 1 and [s["mean"] for s in told["systems"]] == [3, 8]


def test_results_of_many(tmp_path, capsys):
    study = small_study(tmp_path)
    put_ratings(study, [{"maker-0": 8, "maker-1": 5, "maker-2": 2 + n % 2} for n in range(12)])
    out = ["--out", str(tmp_path / "r" / "a.html"), "--json", str(tmp_path / "r" / "a.json")]
    assert listen.main(["--results", str(study.path), *out]) == 0
    assert "Friedman" in capsys.readouterr().out
    assert "8.00" in (tmp_path / "r" / "a.html").read_text("utf-8")
    assert json.loads((tmp_path / "r" / "a.json").read_text())["friedman"]["p"] < 0.01


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "what to listen to"),
        (["--host", "0.0.0.0"], "add --token"),
        (["--host", "0.0.0.0", "--token", "short"], "at least 8"),
        (["no-such-run"], "no run or checkpoint"),
        (["missing.mid", "other.mid"], "check the path"),
        (["piece.mid"], "2 to 60 clips"),
        (["--baselines"], "say of which"),
        (["piece.mid", "--baselines"], "piece.mid"),
        (["bad.mid", "piece.mid"], "bad.mid"),
        (["bad.wav", "piece.mid"], "bad.wav"),
        (["piece.mid", "take.wav", "--control", "nonsense"], "nonsense"),
        (["--results", "none.sqlite"], "no study"),
        (["--import", "none.json"], "no study"),
        (["--num", "0"], "--num"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(sources, monkeypatch, capsys, words, told):
    monkeypatch.chdir(sources)
    monkeypatch.setattr(listen, "find_spec", lambda name: True)  # nothing gets as far as serving
    (sources / "bad.mid").write_bytes(b"MThd rubbish")
    (sources / "bad.wav").write_bytes(b"rubbish")
    assert run(listen.main, [*words, "--seconds", "2", "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and told in error
    assert not (sources / "listening.sqlite").exists()


def test_a_study_is_never_written_over(sources):
    words = [str(sources / "piece.mid"), str(sources / "take.wav")]
    study = made(sources, *words)
    with pytest.raises(UserError, match="holds a study already"):
        made(sources, *words)
    assert Study(study.path).id == study.id


def test_without_its_packages_it_says_what_to_install(sources, monkeypatch):
    study = small_study(sources)
    monkeypatch.setitem(sys.modules, "flask", None)
    monkeypatch.setattr(listen, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install flask waitress"):
        listen.main(["--db", str(study.path)])
    assert listen.main(["--results", str(study.path), "--quiet"]) == 0
