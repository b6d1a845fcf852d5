"""Put a run's best checkpoint into the package, without what resuming needs.

    python tools/bundle_model.py RUN NAME [--chorales SEMITONES]

NAME is one of bach, jsb, muse. Primers are openings of the corpus's pieces; where its terms don't
let others publish it, those of the bundled chorales stand in, in C, so many semitones higher
(JSB's set is written an octave above the music). Then say how the model was made in
src/lstm_music/data/NAME-model/README.md and docs/model-card.md.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.runs.checkpoint import (
    CHECKPOINTS,
    META_FILE,
    MODEL_FILE,
    linked,
    read_checkpoint,
    sealed,
)
from lstm_music.runs.folder import METRICS, read_metrics
from lstm_music.runs.opened import BUNDLED

DATA = Path(__file__).parents[1] / "src" / "lstm_music" / "data"


def chorales(grid: int, semitones: int) -> list[dict[str, Any]]:
    """Return openings of held-out chorales as frames of pitches; grid: frames a whole note."""
    reading = Reading("note", grid=grid, common_key="C")
    return [
        primer | {"frames": [[p + semitones for p in frame] for frame in primer["frames"]]}
        for primer in load_corpus("bach", reading=reading).primers()
    ]


def main() -> None:
    """Copy the weights, write what describes them, and read both back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=BUNDLED)
    parser.add_argument("--chorales", type=int, metavar="SEMITONES")
    args = parser.parse_args()
    best = linked(args.run / CHECKPOINTS, "best")
    assert best is not None, "the run has no best checkpoint"
    meta = json.loads((best / META_FILE).read_text("utf-8"))
    del meta["seal"]
    # A run that is stopped between two periods marks its last checkpoint as the best without
    # counting it: the next part of the run goes on as if it had not been stopped.
    own = [row for row in read_metrics(args.run / METRICS) if row["step"] == meta["step"]]
    (meta["progress"]["best"],) = {row["loss"] for row in own if row["split"] == "valid"}
    meta["progress"]["best_step"] = meta["step"]
    meta["sha256"] = {MODEL_FILE: meta["sha256"][MODEL_FILE]}
    if args.chorales is not None:
        meta["primers"] = chorales(meta["tokenizer"]["grid"], args.chorales)
    folder = DATA / f"{args.name}-model"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(best / MODEL_FILE, folder / MODEL_FILE)
    (folder / META_FILE).write_bytes(sealed(meta))
    sizes = [path.stat().st_size for path in folder.iterdir()]
    step = read_checkpoint(folder).meta["step"]
    print(f"{folder}: step {step:,}, {sum(sizes) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
