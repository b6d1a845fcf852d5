"""Put a run's best checkpoint into the package, without what resuming needs.

    python tools/bundle_model.py RUN NAME [--without-primers]

NAME is one of bach, jsb, muse. Primers are openings of the corpus's pieces: leave them out where
the corpus's terms don't let others publish it. Then say in src/lstm_music/data/NAME-model/README.md
and docs/model-card.md how the model was made, and run tools/check_wheel.py.
"""

import argparse
import json
import shutil
from pathlib import Path

from lstm_music.checkpoint import CHECKPOINTS, META_FILE, MODEL_FILE, read_checkpoint, sealed
from lstm_music.cli.runs import BUNDLED

DATA = Path(__file__).parents[1] / "src" / "lstm_music" / "data"


def main() -> None:
    """Copy the weights, write what describes them, and read both back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=BUNDLED)
    parser.add_argument("--without-primers", action="store_true")
    args = parser.parse_args()
    best = args.run / CHECKPOINTS / "best"
    meta = json.loads((best / META_FILE).read_text("utf-8"))
    del meta["seal"]
    meta["sha256"] = {MODEL_FILE: meta["sha256"][MODEL_FILE]}
    if args.without_primers:
        meta["primers"] = []
    folder = DATA / f"{args.name}-model"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(best / MODEL_FILE, folder / MODEL_FILE)
    (folder / META_FILE).write_bytes(sealed(meta))
    sizes = [path.stat().st_size for path in folder.iterdir()]
    step = read_checkpoint(folder).meta["step"]
    print(f"{folder}: step {step:,}, {sum(sizes) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
