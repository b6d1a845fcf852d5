"""A checkpoint for the browser: weights in 16 bits, words as numbers; report/browser/network.js
reads it."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.biaxial import KINDS_FROM, METERS
from lstm_music.network.config import Config
from lstm_music.network.model import parameter_shapes
from lstm_music.network.recall_rules import recall_rules
from lstm_music.ops.reference.copying import BUCKETS
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.composer import tempo_of
from lstm_music.sampling.craft import voices_of
from lstm_music.sampling.rules import Rules
from lstm_music.sampling.token_composers import CRAFT
from lstm_music.sampling.word_rules import rules_of
from lstm_music.tokenizers import chords
from lstm_music.tokenizers.messages import PITCHES
from lstm_music.tokenizers.parts import Player

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
    """Return what the scripts need of a checkpoint, as JSON can hold it.

    name: what the page calls it; drums: which parts are; parts: their names; voices: of each part
    of written music the voice or -1; craft: what a fault in part writing costs, in nats; top_p:
    the share that `bin/sample` draws among; tempo: of its corpus, in quarter notes a minute.
    common_key: words tell the key. weights: the parameters of arrays [name, size] one after the
    other, as base64 of little-endian 16-bit floats. rules, which notes have none of: without the
    table, which the page has; chords: the pitches of each, by id. classes, deltas: of a factored
    head, by id. around: how a biaxial network reads places and runs. recall: of a copy gate, how it
    compares words, without the ids of codes, which the page finds itself.
    """
    config, tokenizer = checkpoint.config, checkpoint.meta["tokenizer"]
    corpus, vocabulary = checkpoint.meta["corpus"], checkpoint.vocabulary
    parts = [Player(*player) for player in tokenizer.get("parts", ())]
    notes, chord = (tokenizer["name"] == kind for kind in ("note", "chord"))
    rules = None if notes else rules_of(vocabulary, tokenizer, corpus)
    voices = voices_of(parts) if tokenizer["name"] == "event" else [-1] * len(parts)
    pitches = [chords.parse(word) or [] for word in vocabulary.words] if chord else None
    rounded, words = in_16_bits(checkpoint.parameters), checkpoint.words
    names = list(parameter_shapes(config))
    weights = b"".join(rounded[n].astype("<f2").tobytes() for n in names)
    return {
        "name": name,
        "representation": tokenizer["name"],
        "grid": tokenizer.get("grid"),
        "rules": None if rules is None else as_lists(rules),
        "chords": pitches,
        "drums_alone": len(corpus.get("drums") or ()) == PITCHES,
        "drums": [part for part, player in enumerate(parts) if player.drums],
        "parts": [player.name for player in parts],
        "voices": voices,
        "craft": CRAFT if any(voice >= 0 for voice in voices) else 0,
        "common_key": bool(tokenizer.get("common_key")),
        "primers": [primer_of(primer) for primer in checkpoint.meta["primers"]],
        "top_p": top_p,
        "tempo": tempo_of(checkpoint),
        "head": config.head,
        "around": {"meters": METERS, "trusts": kinds()} if config.head == "biaxial" else None,
        "recall": recall_json(checkpoint),
        "classes": None if words is None else words[0].tolist(),
        "deltas": None if words is None else words[1].tolist(),
        "layers": config.layers,
        "hidden": config.hidden,
        "embedding": config.embedding,
        "arrays": [[n, int(rounded[n].size)] for n in names],
        "weights": base64.b64encode(weights).decode(),
    }


def kinds() -> list[int]:
    """Return the kind of each bucket, as a biaxial network's notes tell them apart."""
    return [sum(bucket >= first for first in KINDS_FROM[1:]) for bucket in range(BUCKETS)]


def as_lists(rules: Rules) -> dict[str, Any]:
    """Return what rules.js needs of rules, numbers and lists: all but the table."""
    kept = (name for name in rules._fields if name not in ("needs", "next"))
    return {name: as_json(getattr(rules, name)) for name in kept}


def recall_json(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return what recall.js needs of a copy gate's rules, None where there is no gate."""
    if not checkpoint.config.copy:
        return None
    found = recall_rules(checkpoint.vocabulary, checkpoint.meta["tokenizer"])
    words = [] if checkpoint.config.reads_notes else found.words.tolist()
    told = {name: getattr(found, name) for name in ("orders", "lags", "line", "phrases", "same")}
    return {**told, "words": words}


def as_json(value: Any) -> Any:
    """Return a list of an array's numbers, and anything else as it is."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def primer_of(primer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name of an opening, and its ids or the pitches of its frames."""
    return {"name": primer["name"], "music": primer["ids" if "ids" in primer else "frames"]}
