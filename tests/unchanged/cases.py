"""Which commands are held to what they gave: a line each, in groups, the quick tier's first.

A line is a command as one would type it, but for what `place.py` adds: where it writes, one thread,
NumPy where the line names no backend, and a small network where it doesn't ask for one of
--usual-size.
"""

SIZE = "--hidden 8 --embedding 7 --layers 2 --dropout 0.3 --batch 3 --seq 5"

RUNS = {
    "flatten": "music --tracks flatten",
    "merge": "music --tracks merge",
    "factored": "music --head factored",
    "event": "music --representation event",
    "chord": "music --representation chord",
    "thin": "music --representation chord --grid 16 --max-polyphony 1",
    "sigmoid": "music --representation note",
    "nade": "music --head nade --nade 5",
    "band": "bands --drums --tracks flatten",
    "beat": "beats --drums --representation event",
    "long": "long --representation event",
    "copies": "music --copy --representation event",
    "copies-flatten": "music --copy --tracks flatten",
    "copies-chord": "music --copy --representation chord",
    "copies-nade": "music --copy --head nade --nade 5",
}
"""Runs to sample from and to evaluate, by name. Their one step has no size, so that they are as
they began, on every processor: what training makes is held apart."""

COPIES = [run for run, words in RUNS.items() if "--copy" in words]

LEARNT = {"learnt": "music --epochs 4 --lr 0.02 --anneal-factor 0.5 --anneal-patience 1"}
"""Runs that learnt, whose curves are worth a picture."""

OLD = ("v1", "v2")  # runs that versions of those formats wrote
MODELS = ("bach", "jsb", "muse")  # that come with the package
TOKENS = (
    "flatten", "merge", "factored", "event", "chord", "band", "bach", *OLD,
    "copies", "copies-flatten", "copies-chord",
)  # fmt: skip
MESSAGES = ("flatten", "merge", "factored", "band", *OLD)
ROLLS = ("thin", "sigmoid", "nade", "jsb", "muse")


def lines(text):
    """The lines of a text."""
    return [line.strip() for line in text.strip().splitlines()]


# Composing --------------------------------------------------------------------------------------

QUICK_SAMPLES = lines("""
    sample bach --bars 4 --seed 7
    sample jsb --length 6
    sample muse --length 12 --backend numba
    sample flatten --length 40 --free
    sample merge --length 40 --backend numba
    sample factored --length 40
    sample event --bars 3
    sample chord --seconds 9 --tempo 120
    sample sigmoid --greedy --length 24
    sample nade --primer primer.mid --length 10
    sample band --length 60 --num 2
    sample v2 --length 40
    sample copies --bars 4 --repetition 1
    sample --baseline chord-frequency --corpus music --bars 4
""")
EVERY_RUN = lines("""
    --length 40
    --length 41 --seed 3 --num 3
    --length 40 --greedy
    --length 40 --temperature 0.5
    --length 40 --temperature 2.5
    --length 40 --top-p 1
    --bars 3 --seed 1
    --seconds 7.5 --tempo 133
    --primer primer.mid --length 25
    --primer primer.mid --primer-length 5 --bars 2 --program 19 --tempo 60
    --primer-length 0 --length 30
    --length 40 --backend numba
    --bars 2 --num 2 --seed 2 --backend numba
""")
OF_TOKENS = lines("""
    --length 40 --top-k 3
    --length 40 --top-p 0.5
    --length 60 --strict --temperature 2.5 --seed 5 --backend numba
    --length 12 --num 40 --seed 6 --top-p 1
    --length 12 --num 40 --seed 7 --top-p 1 --backend numba
    --bars 1 --num 40 --seed 8 --top-p 1 --backend numba
""")
OF_MESSAGES = lines("""
    --length 60 --free --seed 4
    --length 60 --free --temperature 2.5 --backend numba
""")
OF_ROLLS = lines("""
    --length 20 --restrike
    --length 20 --restrike --greedy --backend numba
""")
OF_SIGMOIDS = lines("""
    --length 24 --top-k 3
    --length 24 --top-p 0.6
    --length 24 --greedy --backend numba
""")
WHOLE_PIECES = [f"sample {run}" for run in ("flatten", "event", "chord", "sigmoid", "beat", "muse")]
BASELINES = lines("""
    sample --baseline note-unigram --corpus music
    sample --baseline random --corpus music --bars 2 --seed 3
    sample --baseline chord-frequency --corpus bach --bars 4 --num 2 --tempo 70
    sample --baseline chord-frequency --corpus rolls.mat --length 30 --restrike
    sample --baseline untrained flatten --length 40
    sample --baseline untrained nade --length 10
    sample --baseline untrained --corpus music --length 12
""")
REFUSED = lines("""
    sample event --free
    sample muse --top-k 3
    sample beat --primer primer.mid
    sample --baseline random --corpus music --greedy
    train music --representation chord --head nade
    corpus beats
    evaluate --music flatten --bars 2
""")


def samples():
    """The commands that compose."""
    runs = {
        (*RUNS, *MODELS, *OLD): EVERY_RUN, TOKENS: OF_TOKENS, MESSAGES: OF_MESSAGES,
        ROLLS: OF_ROLLS, ("sigmoid",): OF_SIGMOIDS,
    }  # fmt: skip
    made = [
        f"sample {run} {words}"
        for names, options in runs.items()
        for run in names
        for words in options
        if run != "beat" or "primer.mid" not in words
    ]
    made += [f"sample {run} --length 40 --repetition {x}" for run in COPIES for x in (-3, 2)]
    return unique([*QUICK_SAMPLES, *WHOLE_PIECES, *BASELINES, *made])


# Training ---------------------------------------------------------------------------------------

QUICK_TRAINING = lines("""
    train music --tracks flatten --epochs 2
    train music --representation event --epochs 2 --backend numba
    train music --representation note --epochs 2 --optimizer sgd --lr 0.1
    train music --head nade --nade 5 --max-steps 12
    train bach --max-pieces 12 --max-steps 2
    train music --copy --representation event --epochs 2
""")
KINDS = lines("""
    train music --tracks flatten
    train music --tracks merge
    train music --head factored
    train music --representation event
    train music --representation chord
    train music --representation note --head sigmoid
    train music --head nade --nade 5
    train bands --drums --tracks flatten
""")
OPTIMIZERS = ("adam", "rmsprop", "sgd")
TRAINING_OPTIONS = lines("""
    --layers 1
    --layers 3
    --hidden 12 --embedding 5
    --dropout 0
    --input-dropout 0.1 --output-dropout 0.4
    --weight-decay 0.1
    --average 0.9
    --clip 0.1
    --clip 0
    --batch 5 --seq 9
    --seed 4
    --lr 0.02 --anneal-factor 0.5 --anneal-patience 1
    --transpose-augment 3
    --epochs 9 --early-stop 1 --optimizer sgd --lr 4
""")
OTHER_TRAINING = lines("""
    train music --min-count 3 --epochs 2
    train music --max-pieces 5 --seed 1 --epochs 2
    train music --representation chord --grid 16 --epochs 2
    train music --representation chord --max-polyphony 1 --seed 2 --epochs 2
    train music --representation note --common-key C --epochs 2
    train music --representation note --common-key A --grid 4 --epochs 2
    train beats --drums --representation event --epochs 2
    train bands --epochs 2
    train rolls.mat --representation note --epochs 1
    train jsb --data rolls.mat --head nade --nade 5 --epochs 1
    train jsb --data rolls.mat --representation chord --epochs 1
    train music --max-steps 3 --usual-size
    train music --representation chord --max-steps 3 --usual-size --optimizer rmsprop
    train music --head nade --max-steps 2 --usual-size --backend numba
    train --resume --run v1 --data music --max-steps 25
    train --resume --run v2 --data music --max-steps 25
    train --resume --run v2 --data music --max-steps 25 --backend numba
""")


def training():
    """The commands that train."""
    made = [f"{kind} --optimizer {name} --epochs 2" for kind in KINDS for name in OPTIMIZERS]
    made += [f"{kind} --epochs 2 --backend numba" for kind in KINDS]
    made += [f"{kind} --copy --epochs 2 {b}" for kind in KINDS for b in ("", "--backend numba")]
    made += [f"{KINDS[0]} --epochs 3 {words}" for words in TRAINING_OPTIONS]
    made += [f"{KINDS[6]} --epochs 2 {words}" for words in TRAINING_OPTIONS[:9]]
    made += [f"{KINDS[3]} --epochs 2 --backend numba {w}" for w in TRAINING_OPTIONS[:8]]
    return unique([*QUICK_TRAINING, *OTHER_TRAINING, *made])


# Measuring, counting, drawing -------------------------------------------------------------------

QUICK_MEASURES = lines("""
    evaluate flatten
    evaluate chord nade --split valid
    corpus music --tracks merge
    corpus rolls.mat --representation note --common-key C
    evaluate --music long --bars 2 --num 4
    report chord
    figures sigmoid
    evaluate copies copies-nade copies-chord
""")
CORPORA = lines("""
    corpus music
    corpus music --representation event
    corpus music --representation chord
    corpus music --representation note
    corpus music --representation chord --grid 16 --max-polyphony 1 --seed 3
    corpus music --representation note --common-key A --transpose-augment 2
    corpus music --min-count 3
    corpus music --max-pieces 4 --seed 2
    corpus primer.mid
    corpus bands
    corpus bands --drums
    corpus bands --drums --tracks merge
    corpus beats --drums --representation event
    corpus faulty
    corpus faulty --representation event
    corpus faulty --representation chord
    corpus rolls.mat --representation chord
    corpus jsb --data rolls.mat --representation chord --max-polyphony 2
    corpus bach
    corpus bach --tracks merge
    corpus bach --representation event
    corpus bach --representation chord
    corpus bach --representation note --common-key C --grid 16
""")
OTHER_MEASURES = lines("""
    evaluate flatten merge factored event band
    evaluate --baseline random --corpus music
    evaluate --baseline note-unigram --corpus rolls.mat
    evaluate --baseline chord-frequency --corpus music --split valid --grid 16
    evaluate --baseline chord-frequency --corpus bach
    evaluate nade --corpus rolls.mat
    evaluate sigmoid --corpus rolls.mat
    evaluate v1 --data music
    evaluate v2 --data music
    evaluate v2 --data music --split train
    evaluate --music flatten nade --reference long --bars 2 --num 5 --seed 3
    evaluate --music sigmoid --reference long --bars 3 --num 4 --temperature 0.7 --split train
    evaluate --music chord --reference rolls.mat --bars 2 --num 3 --top-p 0.7
    evaluate --music beat --reference long --bars 2 --num 4
    report flatten
    report event --split valid --num 2 --seed 3
    report sigmoid nade
    evaluate learnt
    report learnt
    figures learnt
    figures primer.mid
    figures v2 --seed 1
""")


def measures():
    """The commands that measure, count and draw."""
    made = [f"evaluate {run}" for run in RUNS]
    made += [f"evaluate {run} --split valid --backend numba" for run in RUNS]
    made += [f"figures {run} --bars 2" for run in RUNS]
    return unique([*QUICK_MEASURES, *CORPORA, *OTHER_MEASURES, *made, *REFUSED])


def unique(commands):
    """The commands in their order, each once."""
    return list(dict.fromkeys(commands))


CASES = [*samples(), *training(), *measures()]
