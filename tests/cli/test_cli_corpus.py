import json
import os
import subprocess
import sys

import pytest

from lstm_music.piano_roll import frames_of
from small import piece_of, write_music


def test_the_counts_as_a_table_and_as_json(ok, folder):
    (folder / "music" / "bad.mid").write_bytes(b"rubbish")
    lines = ok("corpus", "music", "--json", "counts.json")
    with open("counts.json", encoding="utf-8") as file:
        counts = json.load(file)
    assert list(counts) == ["pieces", "tokens", "unique_tokens", "skipped", "splits"]
    assert list(counts["splits"]) == ["train", "valid", "test"]
    for part in counts["splits"].values():
        assert list(part) == ["pieces", "tokens", "unique_tokens"]
    assert sum(part["tokens"] for part in counts["splits"].values()) == counts["tokens"] == 8 * 40
    (skipped,) = counts["skipped"]
    assert list(skipped) == ["file", "reason"]
    assert lines[0] == "music, flatten tracks"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:6]}
    for name, part in (counts["splits"] | {"all": counts}).items():
        assert rows[name] == [str(part[k]) for k in ("pieces", "tokens", "unique_tokens")]
    assert lines[6:] == [f"skipped bad.mid: {skipped['reason']}"]


def test_the_layout_of_tracks(ok):
    flatten, merge = ok("corpus", "music"), ok("corpus", "music", "--tracks", "merge")
    assert merge[0] == "music, merge tracks"
    assert flatten[2:] != merge[2:]


@pytest.mark.parametrize("representation", ["chord", "note"])
def test_the_counts_of_frames(ok, folder, representation):
    how = ("--representation", representation, "--grid", 16, "--max-polyphony", 1)
    lines = ok("corpus", "music", *how, "--json", "counts.json")
    assert lines[0] == f"music, {representation}s as frames, at most 1 notes"
    with open("counts.json", encoding="utf-8") as file:
        counts = json.load(file)
    assert list(counts) == ["pieces", "tokens", "unique_tokens", "skipped", "splits"]
    assert counts["pieces"] == 8
    assert counts["tokens"] == sum(len(frames_of(piece_of(seed), 16)[0]) for seed in range(8))
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:6]}
    for name, part in (counts["splits"] | {"all": counts}).items():
        assert rows[name] == [str(part[k]) for k in ("pieces", "tokens", "unique_tokens")]


def test_a_corpus_in_a_common_key_or_on_another_grid(ok):
    plain = ok("corpus", "music", "--representation", "chord")
    assert plain[0] == "music, chords as frames"
    assert ok("corpus", "music", "--representation", "chord", "--grid", 16) != plain
    assert ok("corpus", "music", "--representation", "chord", "--common-key", "C") != plain


def test_the_seed_is_of_thinned_chords(ok):
    thinned = [
        ok("corpus", "music", "--representation", "chord", "--max-polyphony", 1, "--seed", seed)
        for seed in (0, 0, 1)
    ]
    assert thinned[0] == thinned[1] != thinned[2]


def test_a_named_corpus_from_a_file(ok, folder):
    write_music(folder / "three", pieces=3)
    assert ok("corpus", "bach", "--data", "three")[-1].split()[:2] == ["all", "3"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "the following arguments are required: CORPUS (see bin/corpus --help)"),
        (["bahc"], "unknown corpus 'bahc'"),
        (["music", "--tracks", "sideways"], "invalid choice: 'sideways'"),
        (["music", "--data", "none"], "no file or folder 'none'"),
        (["muse"], "'muse' holds piano rolls"),
        (["muse", "--representation", "chord"], "with --data MuseData.mat"),
        (["music", "--representation", "note", "--grid", "7"], "the grid must divide 1920"),
        (["music", "--max-polyphony", "89"], "'89' is not a whole number from 0 to 88"),
    ],
)
def test_bad_input_is_one_line(fails, words, says):
    assert says in fails("corpus", *words)


def test_the_exit_status_reaches_the_shell(folder):
    for words, status in ((["music"], 0), (["bahc"], 2), (["--help"], 0)):
        command = [sys.executable, "-m", "lstm_music.cli.corpus", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == status
        assert len(done.stderr.splitlines()) == (status == 2)


def test_a_reader_that_is_gone_is_no_error(folder):
    """As in `bin/corpus … | true`: what is printed waits in a buffer until the end."""
    command = [sys.executable, "-m", "lstm_music.cli.corpus", "music"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, check=False, stdout=write_end, stderr=subprocess.PIPE, env=buffered
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")
