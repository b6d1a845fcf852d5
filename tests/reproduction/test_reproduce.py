"""bin/reproduce: trained, judged and told on small corpora; gone on with; runs from elsewhere."""

import json
import re
import shutil
from pathlib import Path

import documentation as docs
import pytest
from small import COMPUTE, small_corpus, small_trainer

from lstm_music.cli import judging, reproduce, train
from lstm_music.cli.common import run
from lstm_music.cli.train_options import make_parser, new_options
from lstm_music.errors import UserError
from lstm_music.reproduction.experiments import EXPERIMENTS, NAMES
from lstm_music.reproduction.outcome import (
    Ledger,
    Outcome,
    read_json,
    read_outcome,
    tokens_an_epoch,
)
from lstm_music.reproduction.page import (
    all_epochs,
    embeddings,
    epochs_done,
    hours,
    page,
    returning,
    structure,
    subjects,
)
from lstm_music.reproduction.pictures import Pictures
from lstm_music.runs.checkpoint import META_FILE

SMOKE = ["--scale", "smoke", *COMPUTE]
SMALLEST = ("bach", "muse-truncated", "baselines")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """What bin/reproduce makes of two experiments and the baselines at its smallest scale."""
    out = tmp_path_factory.mktemp("smoke") / "out"
    words = [*SMALLEST, "--out", str(out), "--quiet", *SMOKE]
    assert run(reproduce.main, [*words, "--docs", str(out.parent / "docs")]) == 0
    return out


# All of it --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_has_every_experiment_question_and_figure(smoke):
    told = (smoke / "results.md").read_text("utf-8")
    for words in (
        "## The bundled chorales: `bach`", "of at most 4 notes: `muse-truncated`",
        "bin/train bach --layers 2", "bin/train bach --epochs 120", "| – | 60 | 60 |",
        "| 100 | 2 of 100 | 2 of 8 |", "projected from 4.0 %", "1 thread |", "| chord-frequency | ",
        "This is a trial", "| real chorales, by name | 0.10 | 0.03 |", "\n| bach-tuned | 0.",
        "\n| muse-truncated-tuned | 0.0 % (0.0-0.0) |",
        "**6**: the embedding of messages (`bach-paper`)", "bin/listen OUT/bach-paper",
    ):  # fmt: skip
        assert words in told, words
    assert "classical-midi" not in told
    cells = re.search(r"\| nats per frame, test \|(.*)\|", told)[1].split("|")
    assert cells[0].strip() == "–" and all(4 < float(cell) < 61 for cell in cells[1:])
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", told)
    assert len(links) > 6 and all((smoke / link).stat().st_size > 1000 for link in links)
    pages = smoke.parent / "docs"
    text = (pages / "reproduction.md").read_text("utf-8")
    assert text == told.replace("](figures/", "](figures/reproduction/")
    assert all((pages / link).exists() for link in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text))


@pytest.mark.slow
def test_a_page_keeps_what_it_has_of_other_runs(smoke, tmp_path):
    pages, out = tmp_path / "docs", tmp_path / "out"
    shutil.copytree(smoke.parent / "docs", pages)
    shutil.copytree(smoke / "bach-tuned", out / "bach-tuned", symlinks=True)
    shutil.copyfile(smoke / reproduce.LEDGER, out / reproduce.LEDGER)
    words = ["bach", "--no-train", "--quiet", "--out", str(out), "--docs", str(pages), *SMOKE]
    before = (pages / "reproduction.md").read_text("utf-8")
    assert reproduce.main(words) == 0
    assert (pages / "reproduction.md").read_text("utf-8") == before
    config = out / "bach-tuned" / "config.json"
    changed = read_json(config)
    changed["corpus"]["pieces"] = 1234
    config.write_text(json.dumps(changed))
    assert reproduce.main(words) == 0
    assert (pages / "reproduction.md").read_text("utf-8") == before.replace(
        "| pieces | – | 60 | 60 |", "| pieces | – | 60 | 1,234 |", 1
    )


@pytest.mark.slow
def test_runs_are_ordinary_ones_with_the_papers_settings(smoke):
    config = read_json(smoke / "bach-paper" / "config.json")
    assert config["tokenizer"]["layout"] == "flatten" and config["training"]["early_stop"] == 0
    assert config["model"]["dropout"] == 0
    reading = read_json(smoke / "muse-truncated-paper" / "config.json")["reading"]
    assert (reading["representation"], reading["max_polyphony"]) == ("chord", 4)
    assert list((smoke / "muse-truncated-tuned" / "samples").glob("*.mid"))


@pytest.mark.slow
def test_what_is_done_is_not_done_again(smoke, monkeypatch):
    def forbidden(*_):
        raise AssertionError

    monkeypatch.setattr(train, "main", forbidden)
    for module in (judging.evaluate, judging.music, judging.figures):
        monkeypatch.setattr(module, "main", forbidden)
    words = [*SMALLEST, "--out", str(smoke), "--quiet", *SMOKE]
    before = (smoke / "results.md").read_text("utf-8")
    assert reproduce.main(words) == 0
    assert (smoke / "results.md").read_text("utf-8") == before


@pytest.mark.slow
def test_a_better_checkpoint_is_judged_anew(smoke, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(smoke, out, symlinks=True)
    checkpoints = out / "muse-truncated-tuned" / "checkpoints"
    (best,) = [path for path in checkpoints.glob("step-*") if path.name == best_of(checkpoints)]
    shutil.copytree(best, checkpoints / "step-00099999")
    (checkpoints / "best").unlink()
    (checkpoints / "best").symlink_to("step-00099999")
    judged = []
    for module in (judging.evaluate, judging.music, judging.figures):
        monkeypatch.setattr(module, "main", lambda words: judged.append(words[0]) or 0)
    assert reproduce.main(["muse-truncated", "--out", str(out), "--quiet", *SMOKE]) == 0
    assert judged == [str(out / "muse-truncated-tuned")] * 4


@pytest.mark.slow
def test_what_was_taken_away_is_made_again(smoke, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(smoke, out, symlinks=True)
    (out / "muse-truncated-paper" / "music.json").unlink()
    judged = []
    monkeypatch.setattr(judging.music, "main", lambda words: judged.append(words[0]) or 0)
    assert reproduce.main(["muse-truncated", "--out", str(out), "--quiet", *SMOKE]) == 0
    assert judged == [str(out / "muse-truncated-paper")]


def best_of(checkpoints):
    return (checkpoints / "best").resolve().name


# Going on, adopting -----------------------------------------------------------------------------


class Trained:
    """Stands in for bin/train: remembers what it was asked, and answers in turn."""

    def __init__(self, monkeypatch, *answers):
        self.asked, self.answers = [], list(answers)
        monkeypatch.setattr(train, "main", self)
        monkeypatch.setattr(reproduce, "judge", lambda *_: 0)

    def __call__(self, words):
        self.asked.append(list(words))
        Path(words[words.index("--run") + 1]).mkdir(parents=True, exist_ok=True)
        return self.answers.pop(0)


def test_ctrl_c_stops_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    trained = Trained(monkeypatch, 0, 130, 0)
    words = ["bach-midi", "--out", str(tmp_path / "out"), *SMOKE]
    assert reproduce.main(words) == 130
    assert "go on with the same command: bin/reproduce bach-midi" in capsys.readouterr().err
    assert reproduce.main(words) == 0
    runs = [Path(asked[asked.index("--run") + 1]).name for asked in trained.asked]
    assert runs == ["bach-midi-paper", "bach-midi-tuned", "bach-midi-tuned"]
    assert ["--resume" in asked for asked in trained.asked] == [False, False, True]
    assert "[2 of 2] bach-midi-tuned" in capsys.readouterr().out


def test_a_budget_of_minutes_is_spent_once(tmp_path, monkeypatch):
    (tmp_path / "bach-417.zip").write_bytes(b"")
    trained = Trained(monkeypatch, 130, 0, 0)
    out = tmp_path / "out"
    words = ["bach-midi", "--data", str(tmp_path), "--out", str(out), *COMPUTE, "--quiet"]
    assert reproduce.main(words) == 130
    Ledger(out / reproduce.LEDGER).note("bach-midi-paper", minutes=6.0)
    assert reproduce.main(words) == 0
    budgets = [asked[asked.index("--max-minutes") + 1] for asked in trained.asked]
    assert budgets == ["15", "9.0", "15"]
    assert reproduce.main(words) == 0 and len(trained.asked) == 3


def test_so_many_pieces_are_judged_as_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(judging.music, "main", lambda words: asked.append(words))
    one = judging.Subject("a", tmp_path, ["music"], [], [], False)
    for words in (["--num", "7"], [], ["--scale", "smoke"]):
        judging.products(one, reproduce.make_parser().parse_args(words))["music"]()
    assert [words[words.index("--num") + 1] for words in asked] == ["7", "50", "4"]


def begun(folder, options, **changed):
    """A run as bin/train begins one, of small music but with an experiment's settings."""
    words = ["music", *options.split(), "--epochs", "9", "--run", str(folder / "none")]
    _, wanted = new_options(make_parser().parse_args(words))
    trainer = small_trainer(small_corpus(folder, "flatten"), folder / "run", max_steps=4)
    trainer.train()
    config = read_json(folder / "run" / "config.json")
    for part in ("reading", "model", "training"):
        config[part] |= {key: wanted[key] for key in config[part] if key in wanted}
    config["model"]["copy"] = 0
    config["training"] |= changed
    (folder / "run" / "config.json").write_text(json.dumps(config))
    return folder / "run"


def test_a_run_from_elsewhere_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "bach-417.zip").write_bytes(b"")
    out = tmp_path / "out"
    made = begun(tmp_path, EXPERIMENTS["bach-midi"].paper.options, keep=7, epochs=50)
    shutil.copytree(made, out / "bach-midi-paper", symlinks=True)
    trained = Trained(monkeypatch, 0, 0)
    words = ["bach-midi", "--data", str(tmp_path), "--out", str(out), *COMPUTE, "--quiet"]
    assert reproduce.main([*words, "--hardware", "an abacus"]) == 0
    assert [asked[asked.index("--run") + 1] for asked in trained.asked] == [
        str(out / "bach-midi-tuned")
    ]
    told = (out / "results.md").read_text("utf-8")
    assert "an abacus" in told and re.search(r"\| time of all epochs .*, projected from ", told)
    assert reproduce.main([*words, "--hardware", "two abaci"]) == 0
    assert "two abaci" in (out / "results.md").read_text("utf-8")
    assert reproduce.main([*words, "--scale", "gpu"]) == 0  # the tuned one goes on, this one not
    assert len(trained.asked) == 2 and "--resume" in trained.asked[-1]


def test_a_run_with_other_settings_is_refused(tmp_path, monkeypatch):
    (tmp_path / "bach-417.zip").write_bytes(b"")
    out = tmp_path / "out"
    made = begun(tmp_path, EXPERIMENTS["bach-midi"].paper.options, batch=32)
    shutil.copytree(made, out / "bach-midi-paper", symlinks=True)
    trained = Trained(monkeypatch)
    with pytest.raises(UserError, match="--batch 32, not --batch 50"):
        reproduce.main(["bach-midi", "--data", str(tmp_path), "--out", str(out), "--quiet"])
    assert not trained.asked


def test_no_train_judges_what_is_there_alone(tmp_path, monkeypatch):
    (tmp_path / "bach-417.zip").write_bytes(b"")
    trained = Trained(monkeypatch)
    judged = []
    monkeypatch.setattr(reproduce, "judge", lambda one, *_: judged.append(one.name))
    made = begun(tmp_path, EXPERIMENTS["bach-midi"].paper.options, epochs=50)
    shutil.copytree(made, tmp_path / "out" / "bach-midi-paper", symlinks=True)
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--no-train", "--quiet"]
    assert reproduce.main([*words, *COMPUTE]) == 0
    assert judged == ["bach-midi-paper"] and not trained.asked


def test_what_is_left_out_for_want_of_data(tmp_path, monkeypatch, capsys):
    Trained(monkeypatch, 0, 0, 0, 0)
    (tmp_path / "bach-417.zip").write_bytes(b"")
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), *COMPUTE]
    assert reproduce.main(words) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("left out")]
    for name in NAMES[2:]:
        assert f"{name} (no " in line
    assert "muse-all (no MuseData.mat)" in line and str(tmp_path) in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nade"], "--data or LSTM_MUSIC_DATA"),
        (["sigmoid", "--data", "."], "sigmoid (no MuseData.mat)"),
        (["symphony"], "no experiment 'symphony': use bach, bach-midi"),
        (["--scale", "huge"], "--scale"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LSTM_MUSIC_DATA", raising=False)
    assert run(reproduce.main, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and told in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("kind", ["paper", "tuned"])
def test_every_command_line_is_one_of_bin_train(name, kind):
    one, corpus = getattr(EXPERIMENTS[name], kind), "bach" if name == "bach" else "x"
    parsed = make_parser().parse_args([corpus, *one.options.split(), "--run", "/nowhere/at/all"])
    _, options = new_options(parsed)
    if kind == "paper":
        size = 25 if name == "classical-midi" else 50
        assert (options["batch"], options["seq"], options["hidden"]) == (size, size, 128)
        assert (options["layers"], options["embedding"], options["clip"]) == (2, 128, 5)
        assert (options["dropout"], options["early_stop"], options["average"]) == (0, 0, 0)
        assert options["anneal_factor"] == 0.5 and not options["copy"]
    else:
        assert options["average"] > 0 and options["copy"]


def test_the_page_of_the_documentation_is_what_its_record_says():
    drawn = docs.ROOT / "docs" / "figures" / "reproduction"
    known = read_json(drawn / reproduce.RECORD)
    told = {name: Outcome(**known[name]) for name in subjects() if name in known}
    pictures = Pictures(drawn / "none", drawn, docs.ROOT / "docs")
    pictures.fewer_colours = pictures.new = lambda name: None  # what is drawn stays as it is
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lstm_music.rendering.figures.compared_losses", lambda *_: None)
        found = page(told, known.get("baselines", {}), False, pictures)
    assert (docs.ROOT / "docs" / "reproduction.md").read_text("utf-8") == found


def test_a_record_holds_no_places_of_this_machine(tmp_path):
    trainer = small_trainer(small_corpus(tmp_path), tmp_path / "run", max_steps=2)
    trainer.train()
    rows = [{"name": str(tmp_path / "run"), "nats_per_token": 1.0}]
    (tmp_path / "run" / "evaluation-test.json").write_text(json.dumps(rows))
    assert str(tmp_path) not in json.dumps(read_outcome(tmp_path / "run")._asdict())
    record = docs.ROOT / "docs" / "figures" / "reproduction" / reproduce.RECORD
    assert not re.findall(r'"/[^"]*"', record.read_text("utf-8"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no record of bin/reproduce: move it away"),
        ('["bach-paper"]', "is no record"),
        ('{"bach-paper": {"name": "bach-paper"}}', "is no record"),
        ('{"trial": false}', "is of another --scale: choose another --docs"),
    ],
)
def test_a_record_that_cant_be_joined_stays_and_nothing_is_trained(
    tmp_path, monkeypatch, capsys, content, told
):
    trained = Trained(monkeypatch)
    record = tmp_path / "docs" / "figures" / "reproduction" / reproduce.RECORD
    record.parent.mkdir(parents=True)
    record.write_text(content)
    words = ["bach", "--out", str(tmp_path / "out"), "--docs", str(tmp_path / "docs"), *SMOKE]
    assert run(reproduce.main, words) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not trained.asked
    assert record.read_text() == content


# Figures that follow from others ----------------------------------------------------------------


def test_epochs_and_hours_of_a_run_that_was_stopped(tmp_path):
    trainer = small_trainer(small_corpus(tmp_path), tmp_path / "run", max_steps=45)  # 18 an epoch
    trainer.train()
    meta = tmp_path / "run" / "checkpoints" / "latest" / META_FILE
    content = json.loads(meta.read_text())
    content["progress"]["seconds"] = 90.0
    meta.write_text(json.dumps(content))
    one = read_outcome(tmp_path / "run")
    assert one.epochs == pytest.approx(2.5, abs=0.03)
    assert one.epoch_seconds == pytest.approx(36, abs=0.5)
    assert one.projected_hours(1000) == pytest.approx(10, abs=0.15)
    assert epochs_done(one, 1000) == f"{one.epochs:.3g} of 1000"
    assert re.fullmatch(r"(9\.9|10\.0|10\.1) h, projected from 0\.[23] %", all_epochs(one, 1000))
    assert epochs_done(one, 2) == "2" and all_epochs(one, 2) == "1.5 min"
    early = one._replace(stopped_early=True)
    assert epochs_done(early, 9).endswith("stopped early") and all_epochs(early, 9) == "1.5 min"
    assert [x for x, _ in one.curves["train"]] == pytest.approx([1, 2], abs=0.03)
    assert len(one.curves["valid"]) == 3  # the last one where it was stopped
    assert read_outcome(tmp_path / "nothing") is None


def test_tokens_an_epoch_are_measured_once_one_has_ended():
    rows = [{"epoch": 0, "tokens": 60}, {"epoch": 0, "tokens": 101},
            {"epoch": 1, "tokens": 150}]  # fmt: skip
    assert tokens_an_epoch(rows, 1, 99) == 101
    assert tokens_an_epoch(rows[:1], 0, 99) == 99


def test_times_in_words():
    assert [hours(s) for s in (3.21, 100, 5400)] == ["3.2 s", "1.7 min", "1.5 h"]


def some(name, kind, value, low, high):
    repeated = {"value": value, "low": low, "high": high}
    return {
        "name": name, "kind": kind, "overlap": {"value": 0.5}, "copied": 0.01,
        "repetition": {"4": repeated, "8": repeated},
    }  # fmt: skip


def judged(name, music=(), embedding=None):
    return Outcome(name, {}, 1, 1.0, False, {}, {}, list(music), [], embedding, {})


def test_returning_is_more_than_baselines_and_compared_with_real_music():
    real = some("held-out", "real", 0.15, 0.1, 0.2)
    chance = [some("untrained", "baseline", 0.0, 0.0, 0.0),
              some("chord-frequency", "baseline", 0.01, 0.0, 0.03)]  # fmt: skip
    for model, words in (
        ((0.0, 0.0, 0.0), "not told apart from baselines, less than real music"),
        ((0.06, 0.04, 0.08), "more than both baselines, less than real music"),
        ((0.14, 0.09, 0.2), "more than both baselines, not told apart from real music"),
        ((0.06, 0.02, 0.12), "not told apart from baselines, not told apart from real music"),
    ):
        assert returning([some("m", "run", *model), real, *chance]) == words
    made = [real, some("m", "run", 0.06, 0.04, 0.08), *chance]
    told = "\n".join(structure([judged("m", made), judged("none")]))
    assert "| m | 6.0 % (4.0-8.0) | 15.0 % (10.0-20.0) | more than both baselines, less" in told
    assert structure([judged("none")]) == []


def test_order_and_separation_count_beyond_all_shuffles():
    def made(name, rho, share):
        return judged(name, embedding={
            "what": "notes", "rows": 9,
            "order": {"rho": rho, "shuffled_mean": 0.0, "shuffled_max": 0.2},
            "separation": share and {"share": share, "shuffled_mean": 0.5, "shuffled_max": 0.7},
        })  # fmt: skip

    told = embeddings([made("a", 0.3, 0.9), made("b", 0.1, 0.6), made("c", 0.3, None)])
    rows = {line.split()[1]: line for line in told if line.startswith("| ")}
    assert rows["a"].endswith("| yes | 90.0 % | 50.0 %, 70.0 % | yes |")
    assert rows["b"].endswith("| no | 60.0 % | 50.0 %, 70.0 % | no |")
    assert rows["c"].endswith("| yes | – | – | – |")


def test_a_page_of_nothing_is_a_page(tmp_path):
    told = page({}, {}, False, Pictures(tmp_path, tmp_path / "figures", tmp_path))
    assert told.startswith("# The paper's experiments") and "| --- |" not in told
