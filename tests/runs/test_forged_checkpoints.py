"""Checkpoints of strangers: forged descriptions, headers, sizes and links."""

import hashlib
import math
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import save
from test_checkpoint import (
    CONFIG,
    HABITS,
    NOTES,
    VOCABULARY,
    meta,
    meta_of_notes,
    parameters,
    read,
    write,
)

from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.model import init_parameters
from lstm_music.ops import get_ops
from lstm_music.runs import checkpoint as checkpoints
from lstm_music.runs.checkpoint import (
    CHECKPOINTS,
    HEADER_MOST,
    META_FILE,
    MODEL_FILE,
    TRAIN_FILE,
    DamagedCheckpoint,
    arrays_of,
    checkpoints_of,
    linked,
    most_bytes,
    read_checkpoint,
    write_checkpoint,
)
from lstm_music.runs.meta import check_training
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.untrusted import JSON_VALUES

WORDS = list(VOCABULARY.words)
EVENTS = Vocabulary(["piece-end", "bar-1920", "at-0", "on-60", "off-60"]).to_json()
PLAYED = {"name": "performance", "layout": "merge"}
PERFORMANCE = ["piece-end", "on-60", "off-60", "velocity-20"]
FORGED = {
    "markup": {"vocabulary": Vocabulary([*WORDS[:4], "<script>alert(1)</script>"]).to_json()},
    "endless": {"vocabulary": Vocabulary([*WORDS[:4], f"note-on-60-{2**28}"]).to_json()},
    "high": {"vocabulary": Vocabulary([*WORDS[:4], "note-on-128-0"]).to_json()},
    "no end": {"vocabulary": Vocabulary([*WORDS[1:], "note-on-62-0"]).to_json()},
    "no track": {"vocabulary": Vocabulary([WORDS[0], *WORDS[2:], "note-on-62-0"]).to_json()},
    "layers": {"model": CONFIG.to_json() | {"layers": 10**9}},
    "hidden": {"model": CONFIG.to_json() | {"hidden": 2**40}},
    "a truth": {"model": CONFIG.to_json() | {"layers": True}},
    "unknown": {"model": CONFIG.to_json() | {"heads": 3}},
    "rate": {"model": CONFIG.to_json() | {"dropout": "0.5"}},
    "candidates": {"model": CONFIG.to_json() | {"copy": 5}},
    "head": {"model": CONFIG.to_json() | {"head": "nade"}},
    "rows": {"model": CONFIG.to_json() | {"head": "biaxial"}},
    "tokenizer": {"tokenizer": {"name": "sound"}},
    "layout": {"tokenizer": {"name": "message", "layout": "x"}},
    "no tokenizer": {"tokenizer": None},
    "other words": {"tokenizer": {"name": "event", "layout": "merge"}},
    **{
        f"grid {grid!r}": {"tokenizer": {"name": "message", "layout": "flatten", "grid": grid}}
        for grid in (7, 0, True, 16.0, "16,7", "", [16])
    },
    "no layout": {"tokenizer": {"name": "event"}, "vocabulary": EVENTS},
    "an event": {
        "tokenizer": {"name": "event", "layout": "merge"},
        "vocabulary": Vocabulary([*EVENTS["words"][:4], "bar-0"]).to_json(),
    },
    "a shift": {
        "tokenizer": PLAYED,
        "vocabulary": Vocabulary([*PERFORMANCE, "shift-101"]).to_json(),
        "corpus": {"name": "a", "key": "b", "longest_pause": 9} | HABITS,
    },
    **{
        f"{word} of {len(parts)} parts": {
            "tokenizer": PLAYED | {"parts": parts},
            "vocabulary": Vocabulary([*PERFORMANCE, word]).to_json(),
            "corpus": {"name": "a", "key": "b", "longest_pause": 9} | HABITS,
        }
        for word, parts in (
            ("part-1", []), ("part-2", [["Flute", 73, False]]), ("on-38/2", [["Kit", 0, True]]),
            ("part-1", [["Flute", 173, False]]),
        )
    },
    "no pause": {"tokenizer": PLAYED, "vocabulary": Vocabulary([*PERFORMANCE, "on-61"]).to_json()},
    "flat performance": {
        "tokenizer": PLAYED | {"layout": "flatten"},
        "vocabulary": Vocabulary([*PERFORMANCE, "on-61"]).to_json(),
        "corpus": {"name": "a", "key": "b", "longest_pause": 9} | HABITS,
    },
    "habit": {"corpus": {"name": "a", "key": "b"} | HABITS | {"most_notes": -1}},
    "length": {"corpus": {"name": "a", "key": "b"} | HABITS | {"longest_piece": "long"}},
    "long piece": {"corpus": {"name": "a", "key": "b"} | HABITS | {"longest_piece": 2**31}},
    "tempo": {"corpus": {"name": "a", "key": "b", "tempo": 0} | HABITS},
    "a fast tempo": {"corpus": {"name": "a", "key": "b", "tempo": 10**400} | HABITS},
    "tempo in words": {"corpus": {"name": "a", "key": "b", "tempo": "presto"} | HABITS},
    "no tempo": {"corpus": {"name": "a", "key": "b", "tempo": None} | HABITS},
    "common key": {
        "tokenizer": {"name": "event", "layout": "merge", "common_key": "B"},
        "vocabulary": EVENTS,
    },
    "no habit": {"corpus": {"name": "a", "key": "b"}},
    "surrogate": {"corpus": {"name": "\ud800", "key": "b"} | HABITS},
    "augment": {"corpus": {"name": "a", "key": "b", "augment": 65} | HABITS},
    "primer": {"primers": [{"name": "a", "ids": [5]}]},
    "primer below": {"primers": [{"name": "a", "ids": [-1]}]},
    "primer text": {"primers": [{"name": "a", "ids": "12"}]},
    "frames": {"primers": [{"name": "a", "frames": [[60]]}]},
    "primer's name": {"primers": [{"name": 1, "ids": [1]}]},
    "primers": {"primers": {}},
    "origin": {"origin": {"name": "bach"}},
    "origin's name": {"origin": {"name": 1, "step": 2}},
    "origin's step": {"origin": {"name": "bach", "step": -2}},
    "very many primers": {"primers": [{"name": "a", "ids": []}] * 1025},
    "progress": {"settings": {}, "progress": {"step": -1}, "annealing": {"lr": 1}},
    "settings": {"settings": {"batch": 10**9}, "progress": {}, "annealing": {"lr": 1}},
    "optimizer": {"settings": {"optimizer": "lion"}, "progress": {}, "annealing": {"lr": 1}},
    "loss": {"settings": {}, "progress": {"best": float("inf")}, "annealing": {"lr": 1}},
    "annealing": {"settings": {}, "progress": {}, "annealing": {"lr": -1}},
    "steps": {"settings": {}, "progress": {}, "annealing": {"lr": 1}, "optimizer_steps": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_forged_description_is_refused_in_one_line(tmp_path, forged):
    path = write(tmp_path, 1, **({"optimizer_steps": 1} | forged))
    with pytest.raises(DamagedCheckpoint, match=r"meta\.json' is damaged \(") as refused:
        read_checkpoint(path)
    assert "\n" not in str(refused.value)


def test_the_least_and_the_most_that_is_allowed_is_read(tmp_path):
    training = {
        "settings": {"batch": 100_000, "max_minutes": None, "skip_bad_steps": True},
        "progress": {"best": None, "to_beat": 0.5, "step": 0},
        "annealing": {"lr": 0, "best": None},
        "optimizer_steps": 0,
    }
    vocabulary = Vocabulary([*WORDS[:4], f"note-on-60-{2**28 - 1}"]).to_json()
    primers = [{"name": "", "ids": [0, 4]}] * 1024
    path = write(tmp_path, 1, vocabulary=vocabulary, primers=primers, **training)
    settings, progress, annealing = check_training(read_checkpoint(path).meta)
    assert settings.batch == 100_000 and settings.skip_bad_steps
    assert progress.best == annealing.best == math.inf
    assert progress.to_beat == 0.5


@pytest.mark.parametrize("head", ["sigmoid", "biaxial"])
@pytest.mark.parametrize(
    ("words", "forged"),
    [
        (NOTES.words[:-1], {}), (NOTES.words, {"grid": 7}), (NOTES.words, {"grid": 0}),
        (NOTES.words, {"max_polyphony": 89}), (NOTES.words, {"common_key": "H"}),
        (NOTES.words, {"seed": -1}), (NOTES.words, {"mode": 1}),
    ],
)  # fmt: skip
def test_a_forged_description_of_notes_is_refused(tmp_path, words, forged, head):
    config = Config(len(words), 3, 4, 1, head=head)
    described = meta_of_notes(config)
    tokenizer = described["tokenizer"] | forged
    changed = {"tokenizer": tokenizer, "vocabulary": Vocabulary(words).to_json()}
    path = write_checkpoint(
        tmp_path, 1, init_parameters(config, get_ops("numpy"), 0), {}, described | changed
    )
    with pytest.raises(DamagedCheckpoint, match="meta"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden", 5), ("embedding", 4), ("nade", 4), ("layers", 2), ("copy", 9), ("copy", 4)],
)
def test_a_biaxial_model_of_other_sizes_than_its_arrays_is_refused(tmp_path, name, value):
    config = Config(len(NOTES), 3, 4, 1, head="biaxial", nade=3)
    p, described = init_parameters(config, get_ops("numpy"), 0), meta_of_notes(config)
    assert read_checkpoint(write_checkpoint(tmp_path, 1, p, {}, described)).config == config
    described["model"] = config.to_json() | {name: value}
    with pytest.raises(DamagedCheckpoint, match=r"don't fit the model|has 9 candidates"):
        read_checkpoint(write_checkpoint(tmp_path, 2, p, {}, described))


@pytest.mark.parametrize("pitch", [20, 109, True, 60.0])
def test_a_primer_of_notes_that_no_piano_has_is_refused(tmp_path, pitch):
    config = Config(len(NOTES), 3, 4, 1, head="sigmoid")
    described = meta_of_notes(config) | {"primers": [{"name": "a", "frames": [[60, pitch]]}]}
    p = init_parameters(config, get_ops("numpy"), 0)
    with pytest.raises(DamagedCheckpoint, match="primer 1"):
        read_checkpoint(write_checkpoint(tmp_path, 1, p, {}, described))


@pytest.mark.parametrize("words", [["piece-end", "60-64"], ["piece-end", "64-60"], ["60", "rest"]])
def test_words_of_chords_are_chords(tmp_path, words):
    config = Config(len(words), 3, 4, 1)
    chord = meta_of_notes(config)["tokenizer"] | {"name": "chord"}
    described = meta(model=config.to_json(), vocabulary=Vocabulary(words).to_json(),
                     tokenizer=chord, primers=[{"name": "a", "ids": [1]}])  # fmt: skip
    p = init_parameters(config, get_ops("numpy"), 0)
    path = write_checkpoint(tmp_path, 1, p, {}, described)
    if words == ["piece-end", "60-64"]:
        assert read_checkpoint(path).vocabulary.words == tuple(words)
    else:
        with pytest.raises(DamagedCheckpoint, match="meta"):
            read_checkpoint(path)


def forge(path, name, data):
    """Put other content into a checkpoint's file, its hash right."""
    described = checkpoints.read_meta(path)
    described["sha256"][name] = hashlib.sha256(data).hexdigest()
    (path / name).write_bytes(data)
    (path / META_FILE).write_bytes(checkpoints.sealed(described))


@pytest.mark.parametrize(
    "head", [b"", b"1234567", bytes([255]) * 8, (HEADER_MOST + 1).to_bytes(8, "little")]
)
def test_a_forged_header_is_refused(tmp_path, head):
    path = write(tmp_path, 1)
    data = (path / MODEL_FILE).read_bytes()
    forge(path, MODEL_FILE, head + data[8:] if len(head) == 8 else head)
    with pytest.raises(DamagedCheckpoint, match="its header is longer than it can be"):
        read_checkpoint(path)


def test_a_header_of_the_greatest_length_is_read():
    text = b"{}".ljust(HEADER_MOST)
    assert arrays_of(len(text).to_bytes(8, "little") + text) == {}
    assert arrays_of((2).to_bytes(8, "little") + b"{}") == {}


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "finite numbers"), (-np.inf, "finite numbers"), (7, "finite")]
)
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, value, says):
    path = write(tmp_path, 1)
    p = parameters()
    p["head.b"] = np.full_like(p["head.b"], value, np.int32 if value == 7 else np.float32)
    forge(path, MODEL_FILE, save(p))
    with pytest.raises(DamagedCheckpoint, match=f"head.b holds something else than {says}"):
        read_checkpoint(path)


def test_a_file_larger_than_its_model_is_not_read(tmp_path):
    path = write(tmp_path, 1)
    most = most_bytes(MODEL_FILE, checkpoints.read_meta(path))
    size = 8 * sum(p.size for p in parameters().values())
    assert most == size + HEADER_MOST + 8
    with (path / MODEL_FILE).open("ab") as file:
        file.truncate(most + 1)
    with pytest.raises(DamagedCheckpoint, match=f"it has more than {most:,} bytes"):
        read_checkpoint(path)


def test_what_resuming_reads_may_be_four_times_the_model_and_its_state():
    described = {"model": CONFIG.to_json(), "settings": {"batch": 7}}
    elements = sum(p.size for p in parameters().values())
    state = 2 * CONFIG.layers * CONFIG.hidden * 7
    assert most_bytes(TRAIN_FILE, described) == 8 * (4 * elements + state) + HEADER_MOST + 8


@pytest.mark.parametrize("text", [b"[" * 10**6, b"[0" + b",0" * JSON_VALUES + b"]", b" " * 2**25])
def test_json_that_would_cost_much_is_refused(tmp_path, text):
    path = write(tmp_path, 1)
    (path / META_FILE).write_bytes(text + b" " * 9)
    with pytest.raises(DamagedCheckpoint, match=r"nested too deep|holds more than|has more than"):
        read_checkpoint(path)


@pytest.mark.parametrize("place", ["../../outside", "/", "..", ".", "step-1/..", "step-x"])
@pytest.mark.parametrize("link", ["latest", "best"])
def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path, link, place):
    run = tmp_path / "run"
    path = write(run, 1)
    shutil.copytree(path, tmp_path / "outside")
    (run / CHECKPOINTS / "step-x").mkdir()
    (run / CHECKPOINTS / link).unlink(missing_ok=True)
    (run / CHECKPOINTS / link).symlink_to(place)
    assert linked(run / CHECKPOINTS, link) is None
    name, _, (line,) = read(run)
    assert name == path.name
    assert f"{link}' points to no checkpoint beside it: using step-00000001 instead" in line


def test_a_checkpoint_that_is_a_link_is_none(tmp_path):
    path = write(tmp_path / "other", 1)
    run = tmp_path / "run"
    write(run, 2)
    (run / CHECKPOINTS / "step-00000003").symlink_to(path)
    assert [p.name for p in checkpoints_of(run)] == ["step-00000002"]
    (run / CHECKPOINTS / "latest").unlink()
    (run / CHECKPOINTS / "latest").symlink_to("step-00000003")
    assert read(run)[0] == "step-00000002"


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    path = write(tmp_path, 1)
    (path / MODEL_FILE).unlink()
    os.mkfifo(path / MODEL_FILE)
    with pytest.raises(DamagedCheckpoint, match="it is no plain file"):
        read_checkpoint(path)


def test_meta_that_couldnt_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "JSON_BYTES", 1000)
    with pytest.raises(UserError, match="would have more than 1,000 bytes"):
        write(tmp_path, 1, more="x" * 1000)
    assert checkpoints_of(tmp_path) == []
