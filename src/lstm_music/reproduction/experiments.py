"""The paper's experiments, each as options of bin/train: with its settings, and with ours.

Huang & Wu, "Deep Learning for Music" (2016), sections 3 to 5, and the authors' poster (sigmoid).
This is the one place to change what `bin/reproduce` trains.
"""

from typing import NamedTuple

PAPERS = (  # annealed: the rate falls where training slows
    "--layers 2 --hidden 128 --embedding 128 --clip 5 --dropout 0 --early-stop 0 --lr 0.001 "
    "--anneal-factor 0.5 --average 0 --no-copy"
)
CHORDS = "--representation chord --batch 32 --seq 64 --lr 0.004 --dropout 0.3 --average 0.98"
NOTES = "--representation note --batch 32 --seq 64 --lr 0.003 --hidden 200"
CHORALES = "bach"  # the bundled corpus
BACH, CLASSICAL, MUSE = "bach-417.zip", "classical-2000.zip", "MuseData.mat"


class Training(NamedTuple):
    """Options of bin/train without a corpus, and the epochs that are all of it."""

    options: str
    epochs: int


class Experiment(NamedTuple):
    """What is trained on a file of the data folder or CHORALES, and what the paper says of it.

    counted: the part of the corpus that the paper counts, "all" or "train"; told: the rows of our
    table that it has figures for. What it says of others isn't known here, or isn't in it.
    """

    title: str
    file: str
    paper: Training
    tuned: Training  # ours: with a memory of the piece
    counted: str
    told: dict[str, str]


EXPERIMENTS = {
    "bach": Experiment(
        "The bundled chorales",
        CHORALES,
        Training(f"{PAPERS} --head softmax --tracks flatten --batch 50 --seq 50", 50),
        Training("", 120),
        "all",
        {},
    ),
    "bach-midi": Experiment(
        "Bach, MIDI messages",
        BACH,
        Training(f"{PAPERS} --head softmax --tracks flatten --batch 50 --seq 50", 50),
        Training("--representation message", 50),
        "all",
        {"pieces": "417", "tokens": "1,663,576", "different tokens": "35,509", "epochs": "50"},
    ),
    "classical-midi": Experiment(
        "Many composers, MIDI messages",
        CLASSICAL,
        Training(f"{PAPERS} --head softmax --tracks flatten --batch 25 --seq 25", 15),
        Training("--representation message", 15),
        "all",
        {"pieces": "2,000", "tokens": "11,413,884", "different tokens": "132,437", "epochs": "15"},
    ),
    "muse-all": Experiment(
        "MuseData, chords",
        MUSE,
        Training(f"{PAPERS} --representation chord --batch 50 --seq 50", 800),
        Training(CHORDS, 8),
        "train",
        {"pieces": "524", "tokens": "245,202", "different tokens": "39,289", "epochs": "800"},
    ),
    "muse-truncated": Experiment(
        "MuseData, chords of at most 4 notes",
        MUSE,
        Training(f"{PAPERS} --representation chord --max-polyphony 4 --batch 50 --seq 50", 100),
        Training(f"{CHORDS} --max-polyphony 4", 8),
        "train",
        {
            "pieces": "524", "tokens": "245,202", "different tokens": "21,510", "epochs": "100",
            "training time": "7 h", "hardware": "a CPU",
        },
    ),
    "sigmoid": Experiment(
        "MuseData, 88 independent notes",
        MUSE,
        Training(f"{PAPERS} --representation note --head sigmoid --batch 50 --seq 50", 100),
        Training(f"{NOTES} --head sigmoid", 40),
        "train",
        {"pieces": "524", "tokens": "245,202"},
    ),
    "nade": Experiment(
        "MuseData, RNN-NADE",
        MUSE,
        Training(f"{PAPERS} --representation note --head nade --batch 50 --seq 50", 100),
        Training(f"{NOTES} --head nade --dropout 0.3 --average 0.995", 40),
        "train",
        {"pieces": "524", "tokens": "245,202"},
    ),
}  # fmt: skip
BASELINES = "baselines"  # of MuseData, which need no training
NAMES = (*EXPERIMENTS, BASELINES)
