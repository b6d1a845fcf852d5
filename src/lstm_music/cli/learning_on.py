"""bin/train --from: the model that a run begins with, and what the run takes over from it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from lstm_music.cli.common import option_of, warn
from lstm_music.corpus.corpus import Corpus
from lstm_music.errors import UserError
from lstm_music.network.config import Config, Parameters
from lstm_music.network.joining import axes_of, joined
from lstm_music.network.model import init_parameters
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.runs.folder import SHAPE
from lstm_music.runs.meta import check_training
from lstm_music.runs.opened import open_run, reading_of
from lstm_music.tokenizers.parts import Player, parts_of
from lstm_music.tokenizers.vocabulary import Vocabulary

PART = re.compile(r"(/|^part-)([0-9]+)$")  # in a word

OF_ITS_OWN = ("seed", "max_pieces", "min_count")  # what a new run reads as if it began anew
FREE = ("dropout", "input_dropout", "output_dropout")  # of a shape, what may be another
OF_LIMITS = ("epochs", "max_steps", "max_minutes", "seed", "checkpoint_minutes", "keep")


class Origin(NamedTuple):
    """A trained model to begin with, and the name that it was asked for by."""

    name: str
    checkpoint: Checkpoint

    def to_json(self) -> dict[str, Any]:
        """Return what meta.json and config.json say of it."""
        return {"name": self.name, "step": self.checkpoint.meta["step"]}


def open_origin(name: str | None, resumes: bool) -> Origin | None:
    """Return the model that --from names, None without that option."""
    if name is None:
        return None
    if resumes:
        raise UserError("--from begins a new run, and --resume goes on with one: leave one out")
    return Origin(name, open_run(name, warn)[0])


def inherited(origin: Origin, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a model was made with, those of a new run that begins with it.

    given: options, None where one isn't. Raises UserError for those that its weights can't have.
    """
    meta, config = origin.checkpoint.meta, origin.checkpoint.config
    reading = asdict(reading_of(origin.checkpoint, None))
    fixed = {name: value for name, value in reading.items() if name in kept_of(meta["tokenizer"])}
    fixed |= {name: getattr(config, name) for name in SHAPE if name not in FREE}
    for name, value in fixed.items():
        asked = None if given[name] == "none" else given[name]
        if given[name] is not None and asked != value:
            raise UserError(
                f"'{origin.name}' was trained with {option_of(name, value)}: "
                f"leave {option_of(name, given[name]).split()[0]} out, or --from"
            )
    options = {name: value for name, value in reading.items() if name not in OF_ITS_OWN}
    options |= {name: getattr(config, name) for name in SHAPE} | {"copy": config.copy > 0}
    if "settings" in meta:
        settings = asdict(check_training(meta)[0])
        options |= {name: value for name, value in settings.items() if name not in OF_LIMITS}
    if given["optimizer"] not in (None, options.get("optimizer")):
        options["lr"] = None  # what suits that one
    return options


def kept_of(tokenizer: Mapping[str, Any]) -> set[str]:
    """Return the names of the options that a tokenizer of a checkpoint tells of."""
    return {{"name": "representation", "layout": "tracks"}.get(key, key) for key in tokenizer} - {
        *OF_ITS_OWN
    }


def parameters_from(origin: Origin, config: Config, corpus: Corpus, seed: int) -> Parameters:
    """Return the parameters, in NumPy, of a new model of a corpus that begins with another."""
    known = origin.checkpoint
    named = Vocabulary(words_as_known(origin, corpus))
    axes = axes_of(config, named), axes_of(known.config, known.vocabulary)
    fresh = init_parameters(config, get_ops("numpy"), seed)
    return joined(fresh, known.parameters, *axes)


def words_as_known(origin: Origin, corpus: Corpus) -> Sequence[str]:
    """Return a corpus's words with the numbers that a model's parts have, if words tell any.

    Each part takes over from the likest one; where more play than that, numbers go on.
    """
    told = origin.checkpoint.meta["tokenizer"], corpus.tokenizer_json()
    own, roster = ([Player(*player) for player in one.get("parts", ())] for one in told)
    words = corpus.vocabulary.words
    if not own or not roster:
        return words
    taken: dict[int, int] = {}
    for part, number in enumerate(parts_of(roster, own)):
        free = number not in taken.values()
        taken[part] = number if free else len(own) + part
    return [PART.sub(lambda part: f"{part[1]}{taken[int(part[2]) - 1] + 1}", w) for w in words]


def began(origin: Origin, corpus: Corpus) -> str:
    """Return in words where a new run of a corpus begins."""
    step = f"{origin.checkpoint.meta['step']:,}"
    if origin.checkpoint.config.reads_notes:
        return f"from {origin.name}, step {step}"
    words = words_as_known(origin, corpus)
    known = sum(origin.checkpoint.vocabulary.get(word) is not None for word in words)
    return f"from {origin.name}, step {step}, with {known:,} of {len(words):,} words"
