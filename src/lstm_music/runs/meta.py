"""What meta.json of a checkpoint must hold: everything that reads it may rely on this."""

import math
from typing import Any

from lstm_music.midi.grid import grids_of
from lstm_music.midi.roll import HIGHEST, LOWEST, NOTES
from lstm_music.midi.timing import FASTEST, SLOWEST
from lstm_music.network.config import HEADS_OF, Config
from lstm_music.network.learning_rate import Annealing
from lstm_music.network.optim import OPTIMIZERS
from lstm_music.network.recall_rules import candidates_of
from lstm_music.runs.settings import Progress, Settings
from lstm_music.tokenizers import chords, events, messages, performance
from lstm_music.tokenizers.messages import PITCHES, word_parts
from lstm_music.tokenizers.parts import MOST_PARTS
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.untrusted import dictionary, number, of_fields, path_text, text, whole_number

LAYERS, WIDTH, BATCH, COUNT = 64, 65536, 100_000, 2**62  # the most of each
VOCABULARY = 2**24
LONGEST = 2**28 - 1  # ticks of a word: what a MIDI file can say, and older versions read
PRIMERS = 1024
SHAPE_RANGES = {
    "vocabulary": (1, VOCABULARY), "embedding": (1, WIDTH), "hidden": (1, WIDTH),
    "layers": (1, LAYERS), "nade": (1, WIDTH), "classes": (0, VOCABULARY),
    "deltas": (0, VOCABULARY), "copy": (0, 64),
}  # fmt: skip
SETTINGS_RANGES = {
    "batch": (1, BATCH), "seq": (1, BATCH), "lr": (0, math.inf), "clip": (0, math.inf),
    "anneal_factor": (0, 1), "anneal_patience": (1, COUNT), "early_stop": (0, COUNT),
    "weight_decay": (0, math.inf), "average": (0, 1), "epochs": (0, COUNT),
    "max_steps": (0, COUNT), "max_minutes": (0, math.inf), "seed": (0, COUNT),
    "checkpoint_minutes": (0, math.inf), "keep": (1, COUNT),
    "sampled_softmax": (0, VOCABULARY),
}  # fmt: skip
PROGRESS_RANGES = dict.fromkeys(Progress.__dataclass_fields__, (0.0, COUNT))
UNKNOWN = ("best", "to_beat")  # losses that are None before there are any


def check_meta(meta: dict[str, Any]) -> tuple[Config, Vocabulary]:
    """Return the shape of the model and its words. Raises ValueError or UserError for bad fields.

    What only resuming reads is checked where it is there; see `check_training`.
    """
    config = of_fields(Config, meta["model"], "model", SHAPE_RANGES)
    vocabulary = Vocabulary.from_json(meta["vocabulary"])
    if len(vocabulary) != config.vocabulary:
        raise ValueError("vocabulary and model differ in size")
    tokenizer = dictionary(meta["tokenizer"], "tokenizer")
    name = text(tokenizer.get("name"), "tokenizer.name")
    if config.head not in HEADS_OF.get(name, ()):
        raise ValueError(f"a {config.head} head can't predict {name[:40]!r}")
    if config.copy not in (0, K := candidates_of(name, vocabulary)):
        raise ValueError(f"a copy gate of its {name}s has {K} candidates")
    corpus = dictionary(meta["corpus"], "corpus")
    path_text(corpus["name"], "corpus.name")
    text(corpus["key"], "corpus.key")
    whole_number(corpus.get("augment", 0), "corpus.augment", 0, 64)
    check_drums(corpus.get("drums", []))
    number(corpus.get("tempo", SLOWEST), "corpus.tempo", SLOWEST, FASTEST)
    if name in ("message", "event", "performance"):
        check_habits(corpus)
        check_grid(tokenizer.get("grid"))
    if name == "message":
        check_messages(tokenizer, vocabulary)
        check_parts(config, vocabulary)
    elif name == "event":
        check_events(tokenizer, vocabulary)
    elif name == "performance":
        whole_number(corpus["longest_pause"], "corpus.longest_pause", 0, LONGEST)
        check_performances(tokenizer, vocabulary)
    else:
        check_rolls(tokenizer, vocabulary)
    check_primers(meta["primers"], name, config)
    check_origin(meta.get("origin"))
    whole_number(meta["step"], "step", 0, COUNT)
    for file, digest in dictionary(meta["sha256"], "sha256").items():
        text(digest, f"sha256.{file[:40]}")
    if "settings" in meta:
        check_training(meta)
    return config, vocabulary


def check_origin(origin: Any) -> dict[str, Any] | None:
    """Return the name and step of the model that a run began with, if it began with one."""
    if origin is not None:
        path_text(dictionary(origin, "origin")["name"], "origin.name")
        whole_number(origin["step"], "origin.step", 0, COUNT)
    return origin  # type: ignore[no-any-return]


def check_habits(corpus: dict[str, Any]) -> None:
    """Raise ValueError where strict sampling has no habits to keep to."""
    for key in ("longest_note", "most_notes", "max_tracks"):
        whole_number(corpus[key], f"corpus.{key}", 0, LONGEST)
    whole_number(corpus.get("longest_piece", 0), "corpus.longest_piece", 0, LONGEST)


def check_grid(grid: Any) -> None:
    """Raise ValueError unless a grid of notes is one, or there is none."""
    if grid is not None:
        if type(grid) not in (int, str):
            raise ValueError("tokenizer.grid is neither number nor text")
        grids_of(grid)


def check_drums(pitches: Any) -> None:
    """Raise ValueError unless the pitches of drums are some that there are."""
    if not isinstance(pitches, list) or len(pitches) > PITCHES:
        raise ValueError("corpus.drums is no list of pitches")
    for pitch in pitches:
        whole_number(pitch, "corpus.drums", 0, PITCHES - 1)


def check_events(tokenizer: dict[str, Any], words: Vocabulary) -> None:
    """Raise ValueError where a model of events has other words."""
    if tokenizer.get("layout") != "merge":
        raise ValueError("tokenizer.layout is not merge")
    if tokenizer.get("common_key") not in (None, "A"):
        raise ValueError("tokenizer.common_key isn't A")
    parsed = filter(None, map(events.parse, words.words))
    check_roster(tokenizer, [(kind in events.OF_NOTES, part) for kind, _, part in parsed])
    check_specials(words, events.SPECIALS)


def check_roster(tokenizer: dict[str, Any], told: list[tuple[bool, int]]) -> None:
    """Raise ValueError where the parts aren't those of words.

    told: of each word, whether it is to tell a part, and the part that it tells, 0 for none.
    """
    roster = tokenizer.get("parts", [])
    if not isinstance(roster, list) or len(roster) > MOST_PARTS:
        raise ValueError("tokenizer.parts is no list of parts")
    for player in roster:
        check_player(player)
    if any(part > len(roster) for _, part in told):
        raise ValueError("a word is of a part that tokenizer.parts hasn't")
    if roster and any(tells and not part for tells, part in told):
        raise ValueError("a word is of no part, and tokenizer.parts has some")


def check_player(player: Any) -> None:
    """Raise ValueError unless this is a part's name, program, and whether it is drums."""
    if not isinstance(player, list) or len(player) != 3 or not isinstance(player[2], bool):
        raise ValueError("tokenizer.parts has one that isn't [name, program, drums]")
    text(player[0], "tokenizer.parts.name")
    whole_number(player[1], "tokenizer.parts.program", 0, 127)


def check_performances(tokenizer: dict[str, Any], words: Vocabulary) -> None:
    """Raise ValueError where a model of performances has other words."""
    if tokenizer.get("layout") != "merge":
        raise ValueError("tokenizer.layout is not merge")
    parsed = filter(None, map(performance.parse, words.words))
    parts = [number if kind == performance.PART else part for kind, number, part in parsed]
    check_roster(tokenizer, [(False, part) for part in parts])
    check_specials(words, performance.SPECIALS)


def check_messages(tokenizer: dict[str, Any], words: Vocabulary) -> None:
    """Raise ValueError where a model of messages has other words."""
    layout = tokenizer.get("layout")
    if layout not in ("flatten", "merge"):
        raise ValueError("tokenizer.layout is neither flatten nor merge")
    for word in words.words:
        message = messages.parse(word)
        if message is not None and message[2] > LONGEST:
            raise ValueError(f"the word {word[:40]!r} lasts too long")
    specials = messages.SPECIALS if layout == "flatten" else messages.SPECIALS[:1]
    check_specials(words, specials)


def check_parts(config: Config, words: Vocabulary) -> None:
    """Raise ValueError where a factored head counts other classes or deltas than its words have."""
    sizes = [int(part.max()) + 1 for part in word_parts(words)] if config.head == "factored" else []
    if sizes and sizes != [config.classes, config.deltas]:
        raise ValueError("its words have another number of classes or deltas than the model")


def check_rolls(tokenizer: dict[str, Any], words: Vocabulary) -> None:
    """Raise ValueError where a model of frames has other words, or no grid."""
    from lstm_music.corpus.rolls import RollReading  # which needs what reads checkpoints

    fields = dict(tokenizer)
    of_fields(
        RollReading,
        {"representation": fields.pop("name"), **fields},
        "tokenizer",
        {"grid": (1, 1920), "max_polyphony": (0, NOTES), "seed": (0, COUNT)},
    )
    if tokenizer["name"] == "note":
        if len(words) != NOTES:
            raise ValueError(f"a model of notes has {len(words)} words, not {NOTES}")
        return
    for word in words.words:
        chords.parse(word)
    check_specials(words, chords.SPECIALS)


def check_specials(words: Vocabulary, specials: tuple[str, ...]) -> None:
    """Raise ValueError unless the piece's end has id 0 and there are the other specials."""
    missing = [word for word in specials if words.get(word) is None]
    if missing or words.id(specials[0]) != 0:
        raise ValueError(f"its words lack {', '.join(missing) or f'{specials[0]} as the first'}")


def check_primers(primers: Any, representation: str, config: Config) -> None:
    """Raise ValueError unless each opening is of a model's own ids or of notes on a piano."""
    if not isinstance(primers, list) or len(primers) > PRIMERS:
        raise ValueError("primers are no list of openings")
    notes = representation == "note"
    for n, primer in enumerate(primers):
        where = f"primer {n + 1}"
        text(dictionary(primer, where)["name"], f"{where}.name")
        rows = primer["frames"] if notes else [primer["ids"]]
        low, high = (LOWEST, HIGHEST) if notes else (0, config.vocabulary - 1)
        for row in rows:
            if not isinstance(row, list):
                raise ValueError(f"{where} is no list")
            for value in row:
                whole_number(value, where, low, high)


def check_training(meta: dict[str, Any]) -> tuple[Settings, Progress, Annealing]:
    """Return what resuming reads. Raises ValueError for bad fields, KeyError for missing ones."""
    settings = of_fields(Settings, meta["settings"], "settings", SETTINGS_RANGES)
    if settings.optimizer not in OPTIMIZERS:
        raise ValueError("settings.optimizer is unknown")
    given = dictionary(meta["progress"], "progress")
    known = {k: v for k, v in given.items() if not (v is None and k in UNKNOWN)}
    progress = of_fields(Progress, known, "progress", PROGRESS_RANGES)
    given = dictionary(meta["annealing"], "annealing")
    known = {k: v for k, v in given.items() if not (v is None and k == "best")}
    ranges = dict.fromkeys(Annealing.__dataclass_fields__, (0.0, math.inf))
    annealing = of_fields(Annealing, known, "annealing", ranges)
    whole_number(meta["optimizer_steps"], "optimizer_steps", 0, COUNT)
    return settings, progress, annealing
