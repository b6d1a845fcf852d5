import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from small import COMPUTE, flip, target, write_music

from lstm_music.cli import sample, train
from lstm_music.errors import UserError
from lstm_music.midi.files import read_midi
from lstm_music.network.config import Config
from lstm_music.network.model import init_parameters
from lstm_music.ops import get_ops
from lstm_music.runs import checkpoint as checkpoints
from lstm_music.runs.checkpoint import (
    CHECKPOINTS,
    FORMAT,
    META_FILE,
    MODEL_FILE,
    TRAIN_FILE,
    DamagedCheckpoint,
    checkpoints_of,
    point,
    prune,
    read_arrays,
    read_checkpoint,
    read_run,
    write_checkpoint,
)
from lstm_music.tokenizers.messages import word_parts
from lstm_music.tokenizers.vocabulary import Vocabulary

FILES = (MODEL_FILE, TRAIN_FILE, META_FILE)
VOCABULARY = Vocabulary(
    ["piece-end", "track-end", "note-on-60-0", "note-off-60-120", "note-on-61-0"]
)
NOTES = Vocabulary([str(pitch) for pitch in range(21, 109)])
HABITS = {"longest_note": 480, "most_notes": 4, "max_tracks": 2}
CONFIG = Config(vocabulary=len(VOCABULARY), embedding=3, hidden=4, layers=2)


def parameters(seed=0):
    return init_parameters(CONFIG, get_ops("numpy"), seed)


def meta(**more):
    return {
        "model": CONFIG.to_json(),
        "vocabulary": VOCABULARY.to_json(),
        "tokenizer": {"name": "message", "layout": "flatten"},
        "corpus": {"name": "é", "key": "1", "augment": 0} | HABITS,
        "primers": [{"name": "a.mid", "ids": [2, 3]}],
        "loss": 0.1 + 0.2,
    } | more


def meta_of_notes(config):
    return meta(
        model=config.to_json(),
        vocabulary=NOTES.to_json(),
        tokenizer={"name": "note", "grid": 8, "max_polyphony": 0, "common_key": None, "seed": 0},
        primers=[{"name": "a.mid", "frames": [[60, 64], []]}],
    )


def write(run, step, seed=0, **more):
    run.mkdir(exist_ok=True)
    train = {"slot": np.full(3, step, np.float32)}
    return write_checkpoint(run, step, parameters(seed), train, meta(**more))


def assert_arrays(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path, 7)
    assert path == tmp_path / CHECKPOINTS / "step-00000007"
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)
    found = read_checkpoint(path)
    assert found.config == CONFIG
    assert found.vocabulary.words == VOCABULARY.words
    assert_arrays(found.parameters, parameters())
    assert found.meta["step"] == 7
    assert found.meta["loss"] == 0.1 + 0.2
    assert_arrays(read_arrays(path, TRAIN_FILE, found.meta), {"slot": np.full(3, 7, np.float32)})
    assert target(tmp_path, "latest") == path.name
    assert sorted(p.name for p in path.parent.iterdir()) == ["latest", path.name]


def test_training_arrays_may_be_none(tmp_path):
    path = write_checkpoint(tmp_path, 1, parameters(), {}, meta())
    assert read_arrays(path, TRAIN_FILE, read_checkpoint(path).meta) == {}


@pytest.mark.parametrize("head", ["sigmoid", "nade", "biaxial"])
def test_a_model_of_notes_is_read_with_its_head_and_its_rates(tmp_path, head):
    config = Config(len(NOTES), 3, 4, 2, 0.5, 0.25, 0.0, head, nade=3)
    p = init_parameters(config, get_ops("numpy"), 0)
    described = meta_of_notes(config)
    path = write_checkpoint(tmp_path, 1, p, {}, described)
    found = read_checkpoint(path)
    assert found.config == config
    assert_arrays(found.parameters, p)
    others = {"nade": "biaxial", "sigmoid": "nade", "biaxial": "sigmoid"}
    other = config.to_json() | {"head": others[head]}
    path = write_checkpoint(tmp_path, 2, p, {}, described | {"model": other})
    with pytest.raises(DamagedCheckpoint, match="don't fit the model"):
        read_checkpoint(path)


def test_a_factored_model_is_read_with_the_parts_of_its_words(tmp_path):
    classes, deltas = word_parts(VOCABULARY)
    counts = {"classes": int(classes.max()) + 1, "deltas": int(deltas.max()) + 1}
    config = Config(len(VOCABULARY), 3, 4, 2, head="factored", **counts)
    p = init_parameters(config, get_ops("numpy"), 0)
    found = read_checkpoint(write_checkpoint(tmp_path, 1, p, {}, meta(model=config.to_json())))
    assert found.config == config
    assert_arrays(found.parameters, p)
    for part, expected in zip(found.words, (classes, deltas), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert read_checkpoint(write(tmp_path, 2)).words is None
    for name, count in counts.items():
        forged = config.to_json() | {name: count + 1}
        with pytest.raises(DamagedCheckpoint, match="another number of classes or deltas"):
            read_checkpoint(write_checkpoint(tmp_path, 3, p, {}, meta(model=forged)))


def test_an_older_versions_checkpoint_is_read(tmp_path):
    """Its model has no head, and no rates of dropout but one."""
    fields = ("vocabulary", "embedding", "hidden", "layers", "dropout")
    old = {name: value for name, value in CONFIG.to_json().items() if name in fields}
    found = read_checkpoint(write(tmp_path, 1, model=old))
    assert found.config == CONFIG
    assert_arrays(found.parameters, parameters())


# Damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["cut", "remove", "empty"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, file, damage):
    path = write(tmp_path, 1)
    if damage == "remove":
        (path / file).unlink()
    else:
        (path / file).write_bytes((path / file).read_bytes()[:-5] if damage == "cut" else b"")
    with pytest.raises(DamagedCheckpoint, match=file) as error:
        read_arrays(path, TRAIN_FILE, read_checkpoint(path).meta)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("use another checkpoint of the run")


@given(at=st.floats(0, 1), bit=st.integers(0, 7), file=st.sampled_from(FILES))
@settings(deadline=None, max_examples=200)
def test_a_flipped_bit_never_goes_unnoticed(tmp_path_factory, at, bit, file):
    path = write(tmp_path_factory.mktemp("run"), 1)
    before = read_checkpoint(path)
    data = bytearray((path / file).read_bytes())
    data[int(at * (len(data) - 1))] ^= 1 << bit
    (path / file).write_bytes(data)
    try:
        after = read_checkpoint(path)
        read_arrays(path, TRAIN_FILE, after.meta)
    except UserError:
        return
    # White space between JSON's words may change, and means nothing.
    assert file == META_FILE
    assert after.meta == before.meta


@pytest.mark.parametrize(
    "broken",
    [
        {"model": {**CONFIG.to_json(), "hidden": 5}},
        {"model": {**CONFIG.to_json(), "hidden": 0}},
        {"model": {**CONFIG.to_json(), "vocabulary": 6}},
        {"model": {"hidden": 4}},
        {"model": 3},
        {"vocabulary": {}},
        {"vocabulary": Vocabulary(["piece-end"]).to_json()},
    ],
)
def test_a_checkpoint_that_contradicts_itself(tmp_path, broken):
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(write(tmp_path, 1, **broken))


def newer(path):
    """Make a checkpoint one of a newer version, which need not be sealed as ours are."""
    described = json.loads((path / META_FILE).read_text())
    (path / META_FILE).write_text(json.dumps({"format": FORMAT + 1, "more": described["seal"]}))


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    path = write(tmp_path, 1)
    newer(path)
    with pytest.raises(UserError, match=f"format {FORMAT + 1}.*upgrade lstm-music") as error:
        read_checkpoint(path)
    assert not isinstance(error.value, DamagedCheckpoint)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": Infinity}', '{"format": "x"}'])
def test_meta_that_is_no_description(tmp_path, text):
    path = write(tmp_path, 1)
    (path / META_FILE).write_text(text)
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(path)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "nothing")


# Runs -------------------------------------------------------------------------------------------


def read(run, **options):
    warnings = []
    checkpoint, arrays = read_run(run, warnings.append, **options)
    return checkpoint.path.name, arrays, warnings


def test_a_run_is_read_at_its_best_then_its_latest(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    assert read(tmp_path)[0] == "step-00000003"
    point(tmp_path / CHECKPOINTS, "best", "step-00000002")
    assert read(tmp_path)[0] == "step-00000002"
    assert read(tmp_path, links=("latest",)) == ("step-00000003", {}, [])
    point(tmp_path / CHECKPOINTS, "latest", "step-00000001")
    name, arrays, _ = read(tmp_path, links=("latest",), train=True)
    assert name == "step-00000001"
    assert arrays["slot"][0] == 1


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, file):
    for step in (1, 2):
        write(tmp_path, step)
    flip(tmp_path / CHECKPOINTS / "step-00000002" / file, 0.9)
    name, arrays, warnings = read(tmp_path, train=True)
    assert name == "step-00000001"
    assert arrays["slot"][0] == 1
    (line,) = warnings
    assert "step-00000002" in line
    assert file in line
    assert line.endswith("using step-00000001 instead")
    # Training arrays are no concern of a sampler's.
    assert read(tmp_path)[0] == ("step-00000002" if file == TRAIN_FILE else "step-00000001")


def test_links_to_nothing_are_passed_over(tmp_path):
    for step in (1, 2):
        write(tmp_path, step)
    shutil.rmtree(tmp_path / CHECKPOINTS / "step-00000002")
    assert read(tmp_path)[0] == "step-00000001"


def test_a_run_without_a_whole_checkpoint(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        read(tmp_path)
    for step in (1, 2):
        flip(write(tmp_path, step) / MODEL_FILE, 0.9)
    with pytest.raises(UserError, match="no whole checkpoint is left") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_newer_checkpoint_is_never_passed_over(tmp_path):
    for step in (1, 2):
        path = write(tmp_path, step)
    newer(path)
    with pytest.raises(UserError, match="upgrade"):
        read(tmp_path)


def test_checkpoints_are_in_order_of_their_steps(tmp_path):
    for step in (99_999_999, 5, 100_000_000, 20):
        (tmp_path / CHECKPOINTS / f"step-{step:08d}").mkdir(parents=True)
    (tmp_path / CHECKPOINTS / "step-by-step").mkdir()
    names = [path.name for path in checkpoints_of(tmp_path)]
    assert names == ["step-100000000", "step-99999999", "step-00000020", "step-00000005"]


def test_pruning_keeps_the_best_the_latest_and_one_more(tmp_path):
    for step in range(1, 7):
        write(tmp_path, step)
    point(tmp_path / CHECKPOINTS, "best", "step-00000002")
    left_by_a_crash = tmp_path / CHECKPOINTS / ".step-00000009.1.tmp"
    left_by_a_crash.mkdir()
    (left_by_a_crash / MODEL_FILE).write_bytes(b"half")
    prune(tmp_path, keep=2)
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    assert names == ["best", "latest", "step-00000002", "step-00000005", "step-00000006"]


# A disk that refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("fails_at", FILES)
def test_a_full_disk_leaves_everything_as_it_was(tmp_path, monkeypatch, fails_at):
    write(tmp_path, 1)
    before = sorted((tmp_path / CHECKPOINTS).rglob("*"))
    real = checkpoints.write_synced

    def full(path, data):
        if path.name == fails_at:
            path.write_bytes(data[:10])
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(checkpoints, "write_synced", full)
    for step in (1, 2):
        with pytest.raises(OSError, match="No space"):
            write(tmp_path, step, seed=1)
    assert sorted((tmp_path / CHECKPOINTS).rglob("*")) == before
    assert_arrays(read_run(tmp_path, print)[0].parameters, parameters(seed=0))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc for files' names")
def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """What a power cut can undo: the order of syncs and renames, since nothing can cut it here."""
    acts = []
    real_sync, real_rename, real_replace = os.fsync, Path.rename, Path.replace

    def fsync(handle):
        acts.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        real_sync(handle)

    def rename(self, target):
        acts.append(("rename", Path(target).name))
        return real_rename(self, target)

    def replace(self, target):
        acts.append(("replace", Path(target).name))
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", replace)
    path = write(tmp_path, 7)
    made = acts[3][1]
    assert made.startswith(".step-00000007.") and made.endswith(".tmp")
    assert acts == [
        *(("sync", name) for name in FILES), ("sync", made), ("rename", path.name),
        ("replace", "latest"), ("sync", CHECKPOINTS),
    ]  # fmt: skip


def test_a_run_that_is_gone_is_not_made_again_without_its_description(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(FileNotFoundError):
        write_checkpoint(run, 1, parameters(), {}, meta())
    assert not run.exists()


def test_what_a_killed_process_of_the_same_id_left_is_no_hindrance(tmp_path):
    left = tmp_path / CHECKPOINTS / f".step-00000001.{os.getpid()}.tmp"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    path = write(tmp_path, 1)
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)


def test_a_step_written_again_replaces_what_was_there(tmp_path):
    flip(write(tmp_path, 1) / MODEL_FILE, 0.5)
    path = write(tmp_path, 1, seed=1)
    assert_arrays(read_checkpoint(path).parameters, parameters(seed=1))
    assert sorted(p.name for p in path.parent.iterdir()) == ["latest", path.name]


# Older versions ---------------------------------------------------------------------------------

FIXTURES = Path(__file__).parents[1] / "fixtures" / "checkpoints"
VERSIONS = range(1, FORMAT + 1)


def test_each_version_has_a_run_that_it_wrote():
    assert sorted(p.name for p in FIXTURES.iterdir()) == [f"v{n}" for n in VERSIONS]
    for n in VERSIONS:
        assert checkpoints.read_meta(FIXTURES / f"v{n}/checkpoints/step-00000007")["format"] == n


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """A copy of the run of an older version, and its corpus beside it."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_music(tmp_path / "music")

    def copied(version):
        run = tmp_path / "run"
        shutil.copytree(FIXTURES / f"v{version}", run, symlinks=True)
        return run

    return copied


def call(main, *words):
    assert main([*map(str, words), *COMPUTE, "--quiet"]) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_versions_model_composes(old_run, tmp_path, capsys, version):
    call(sample.main, old_run(version), "--length", 40, "--out", tmp_path / "a.mid")
    assert len(read_midi(tmp_path / "a.mid", "a").tracks) > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_versions_run_goes_on_as_it_would_have_there(old_run, capsys, version):
    """step-25.safetensors is what that version had at step 25, never stopped."""
    run = old_run(version)
    call(train.main, "--resume", "--run", run, "--data", "music", "--max-steps", 25)
    found = load_file(run / CHECKPOINTS / "latest" / MODEL_FILE)
    for name, value in load_file(FIXTURES / f"v{version}" / "step-25.safetensors").items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
