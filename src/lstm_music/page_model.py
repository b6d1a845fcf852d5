"""A checkpoint for the browser: weights in 16 bits, words as numbers; page/compose.js reads it."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_music.checkpoint import Checkpoint
from lstm_music.model import Config, parameter_shapes
from lstm_music.ops.numpy_ops import Array
from lstm_music.tokenizers import chords, events, messages
from lstm_music.tokenizers.event_grammar import END
from lstm_music.tokenizers.grammar import PITCHES, SPECIAL
from lstm_music.tokenizers.vocabulary import Vocabulary

LARGEST = float(np.finfo(np.float16).max)


def weights_size(config: Config) -> int:
    """Return how many characters the weights take in the page."""
    numbers = sum(int(np.prod(shape)) for shape in parameter_shapes(config).values())
    return -(-2 * numbers // 3) * 4


def in_16_bits(parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Return parameters as the page has them: rounded to 16-bit floats, in float32.

    What 16 bits can't hold becomes the largest number that they can.
    """
    return {
        name: np.clip(value, -LARGEST, LARGEST).astype(np.float16).astype(np.float32)
        for name, value in parameters.items()
    }


def page_model(name: str, checkpoint: Checkpoint, top_p: float) -> dict[str, Any]:
    """Return what compose.js needs of a checkpoint, as JSON can hold it.

    name: what the page calls it; top_p: the share that `bin/sample` draws among. weights: the
    parameters of arrays [name, size] one after the other, as base64 of little-endian 16-bit floats.
    classes, deltas: of a factored head, by id.
    """
    config, tokenizer = checkpoint.config, checkpoint.meta["tokenizer"]
    habits = ("longest_note", "most_notes", "max_tracks")
    corpus = checkpoint.meta["corpus"]
    rounded, words = in_16_bits(checkpoint.parameters), checkpoint.words
    names = list(parameter_shapes(config))
    weights = b"".join(rounded[n].astype("<f2").tobytes() for n in names)
    return {
        "name": name,
        "representation": tokenizer["name"],
        "layout": tokenizer.get("layout"),
        "grid": tokenizer.get("grid"),
        "words": words_of(checkpoint.vocabulary, tokenizer["name"]),
        **{habit: corpus[habit] for habit in habits if habit in corpus},
        "drums": len(corpus.get("drums") or ()) == PITCHES,  # and nothing else
        "primers": [primer_of(primer) for primer in checkpoint.meta["primers"]],
        "top_p": top_p,
        "head": config.head,
        "classes": None if words is None else words[0].tolist(),
        "deltas": None if words is None else words[1].tolist(),
        "layers": config.layers,
        "hidden": config.hidden,
        "embedding": config.embedding,
        "arrays": [[n, int(rounded[n].size)] for n in names],
        "weights": base64.b64encode(weights).decode(),
    }


def words_of(vocabulary: Vocabulary, representation: str) -> list[list[int]] | None:
    """Return what the words are by id; None for notes, which have none.

    [kind, pitch, delta] of messages, [kind, number] of events, the pitches of chords.
    """
    if representation == "note":
        return None
    if representation == "event":
        return [list(events.parse(word) or (END, 0)) for word in vocabulary.words]
    if representation == "chord":
        return [chords.parse(word) or [] for word in vocabulary.words]
    return [message_numbers(word) for word in vocabulary.words]


def message_numbers(word: str) -> list[int]:
    """Return kind, pitch and delta; of a special word its number stands for the pitch."""
    message = messages.parse(word)
    return list(message) if message else [SPECIAL, messages.SPECIALS.index(word), 0]


def primer_of(primer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name of an opening, and its ids or the pitches of its frames."""
    return {"name": primer["name"], "music": primer["ids" if "ids" in primer else "frames"]}
