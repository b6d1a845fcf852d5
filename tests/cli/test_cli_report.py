import base64
import json
import re
from pathlib import Path

import pytest

from lstm_music.cli import report as command_report
from lstm_music.midi.files import read_midi
from lstm_music.rendering import audio, score
from lstm_music.report import gathering
from lstm_music.report.page import MOST
from lstm_music.report.told import RunReport


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Samples of two bars, which render fast."""
    monkeypatch.setattr(gathering, "BARS", 2)


@pytest.fixture
def run(train_small):
    train_small("--max-steps", 30, "--run", "a", "--quiet")
    return Path("runs/a")


def data_of(path):
    """What the page's scripts read."""
    content = path.read_text("utf-8")
    start = content.index(">", content.index('id="data"')) + 1
    return json.loads(content[start : content.index("</script>", start)])


def test_a_page_of_a_run_is_in_its_folder(ok, run):
    (line,) = ok("report", run)
    path = run / "report.html"
    assert re.fullmatch(rf"{path}  \(\d\.\d MB, 3 samples\)", line)
    assert path.stat().st_size < MOST
    content = path.read_text("utf-8")
    assert "<h1>a</h1>" in content
    for temperature in ("0.8", "1", "1.2"):
        assert f"Temperature {temperature}" in content
    assert content.count("<audio") == 3
    data = data_of(path)
    assert [model["name"] for model in data["models"]] == ["a"]
    assert len(data["samples"]) == 3
    assert str(Path.cwd()) not in content  # paths are nobody else's business


def test_likelihoods_are_those_of_evaluate(ok, run):
    ok("evaluate", run, "--split", "valid", "--json", "out.json")
    own, *others = json.loads(Path("out.json").read_text("utf-8"))
    ok("report", run, "--split", "valid")
    content = (run / "report.html").read_text("utf-8")
    assert "On the valid split" in content
    for row in (own | {"name": "a"}, *others):
        cells = rf">{row['name']}</th><td class=\"number\">{row['nats_per_token']:.4f}</td>"
        assert cells.replace("\\", "") in content


def test_a_seed_gives_the_same_page(ok, run):
    pages = []
    for seed in (1, 1, 2):
        ok("report", run, "--seed", seed, "--out", "page.html")
        pages.append(Path("page.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_samples_are_the_music_that_is_offered(ok, run):
    ok("report", run, "--num", 2)
    content = (run / "report.html").read_text("utf-8")
    links = re.findall(r'href="data:audio/midi;base64,([^"]+)"', content)
    samples = data_of(run / "report.html")["samples"]
    assert len(links) == len(samples) == 6
    for link, sample in zip(links, samples, strict=True):
        piece = read_midi(base64.b64decode(link), "x")
        ons = sum(int(track[:, 1].sum()) for track in piece.tracks)
        assert ons == len(sample["notes"])


def test_several_runs_are_compared(ok, run, train_small):
    train_small("--max-steps", 20, "--representation", "note", "--run", "b", "--quiet")
    (line,) = ok("report", "a", "b", "--quiet")
    assert line == "report.html"
    content = Path("report.html").read_text("utf-8")
    assert "<h1>2 runs compared</h1>" in content
    assert [model["name"] for model in data_of(Path("report.html"))["models"]] == ["a", "b"]
    assert ">untrained (a)<" in content
    assert ">untrained (b)<" in content
    assert "<h3>a</h3>" in content
    assert "Nats per token compare runs on the same tokens only" in content


def test_a_baseline_of_two_runs_is_shown_once(ok, run, train_small):
    train_small("--max-steps", 20, "--run", "b", "--quiet")
    train_small("--max-steps", 20, "--tracks", "merge", "--run", "c", "--quiet")
    ok("report", "a", "b", "c")
    content = Path("report.html").read_text("utf-8")
    for name in ("unigram (a, b)", "unigram (c)", "untrained (a, b)", "untrained (c)"):
        assert content.count(f">{name}<") == 1


def test_runs_of_the_same_name_are_told_apart(ok, run, train_small):
    train_small("--max-steps", 20, "--run", "elsewhere/a", "--quiet")
    ok("report", "runs/a", "elsewhere/a")
    names = [model["name"] for model in data_of(Path("report.html"))["models"]]
    assert names == ["runs/a", "elsewhere/a"]


def test_a_run_with_a_hostile_name_is_shown_as_it_is_called(ok, train_small):
    name = "<b onclick='x'>&amp;"
    train_small("--max-steps", 9, "--run", name, "--quiet")
    ok("report", Path("runs") / name, "--out", "page.html")
    content = Path("page.html").read_text("utf-8")
    assert "<b onclick" not in content
    assert "<h1>&lt;b onclick=&#x27;x&#x27;&gt;&amp;amp;</h1>" in content
    assert data_of(Path("page.html"))["models"][0]["name"] == name


@pytest.mark.skipif(not score.is_available(), reason="the extra score is not installed")
def test_a_score_too_large_for_the_page_is_left_out(ok, run, monkeypatch):
    ok("report", run)
    assert (run / "report.html").read_text("utf-8").count("<summary>Score</summary>") == 3
    monkeypatch.setattr(gathering, "SCORE_SHARE", 0.0001)
    ok("report", run)
    content = (run / "report.html").read_text("utf-8")
    assert "<summary>Score</summary>" not in content
    assert content.count("The score is too large for this page") == 3


def test_without_its_corpus_a_run_still_has_a_page(command, run, folder):
    (folder / "music").rename(folder / "moved")
    done = command("report", run)
    assert done.status == 0
    assert any(line.startswith("warning: a is not evaluated: no file or fol") for line in done.err)
    content = (run / "report.html").read_text("utf-8")
    assert "a is not evaluated: its corpus couldn" in content
    assert str(folder) not in content
    assert content.count("<audio") == 3


def test_rows_of_metrics_that_cannot_be_read_are_left_out(ok, run):
    with (run / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write("not,a,number\n7,1,2,3,valid,nonsense,0.1,,\n")
    ok("report", run)
    assert "validation from" in (run / "report.html").read_text("utf-8")
    (run / "metrics.csv").unlink()
    ok("report", run)
    assert "No metrics.csv is beside a." in (run / "report.html").read_text("utf-8")


def test_without_engraver_or_instruments_there_is_a_page_without_them(ok, run, monkeypatch):
    monkeypatch.setattr(score, "is_available", lambda: False)

    def nothing(midi):
        raise command_report.UserError("nothing here can make sound")

    monkeypatch.setattr(gathering, "wav_bytes", nothing)
    ok("report", run)
    content = (run / "report.html").read_text("utf-8")
    assert "<audio" not in content
    assert "<summary>Score</summary>" not in content
    assert "No sound: nothing here can make sound" in content


def test_what_plays_instead_of_instruments_is_said_once(command, run, monkeypatch):
    monkeypatch.setattr(audio, "sound_font", lambda: None)
    done = command("report", run)
    assert done.status == 0
    (line,) = done.err
    assert line.startswith("warning: ")
    assert "plain synthesiser" in line


def test_without_a_run_the_newest_is_taken(ok, run):
    assert ok("report", "--quiet") == [str(run / "report.html")]


def test_open_shows_the_page(ok, run, monkeypatch):
    shown = []
    monkeypatch.setattr(command_report, "check_opener", lambda: None)
    monkeypatch.setattr(command_report, "open_file", shown.append)
    ok("report", run, "--open")
    assert shown == [run / "report.html"]


def test_what_cannot_be_done_is_said_in_a_line(fails, run):
    assert "no run or checkpoint 'b'" in fails("report", "b")
    assert "give fewer runs, or a lower --num" in fails("report", run, "--num", 90)
    Path("file").write_text("x", encoding="utf-8")
    assert "choose another place" in fails("report", run, "--out", "file/page.html")
    assert not (run / "report.html").exists()


def test_a_page_that_grew_too_large_is_not_written(fails, run, monkeypatch):
    monkeypatch.setattr(command_report, "MOST", 1000)
    monkeypatch.setattr(gathering, "bars_of", lambda samples, tempo: 2)
    assert "the page would have" in fails("report", run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(("samples", "bars"), [(1, 8), (3, 8), (6, 8), (12, 3)])
def test_many_samples_are_shorter(samples, bars, monkeypatch):
    monkeypatch.undo()
    assert gathering.bars_of(samples, 90.0) == bars


def test_reports_are_of_the_run_s_own_steps(ok, run, monkeypatch):
    seen = []
    monkeypatch.setattr(
        command_report, "page", lambda reports, *rest: seen.extend(reports) or "page"
    )
    ok("report", run)
    (made,) = seen
    assert isinstance(made, RunReport)
    lines = (run / "metrics.csv").read_text("utf-8").splitlines()[1:]
    assert [(row.step, row.split) for row in made.metrics] == [
        (int(line.split(",")[0]), line.split(",")[4]) for line in lines
    ]
