"""Build the bundled Bach corpus: the scores music21 carries, as one small zip of MIDI files.

    python tools/build_bach.py [--out src/lstm_music/data/bach.zip]

One standard MIDI file a score: a conductor track (title, key, tempo, meter, and a marker where a
phrase ends), then one track per part in score order, made as those of the corpus `classical`. The
same music21 and the same zlib give the same bytes. What was changed and whose it is stands in
bach.md, beside the archive, whose counts a test holds to it.
"""

import argparse
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import mido

from lstm_music.corpus.classical.build import check_music21, zip_files
from lstm_music.corpus.classical.notation import (
    align_measures,
    file_of,
    meter_messages,
    part_track,
    read_part,
    read_score,
    to_ticks,
    track_of,
)
from lstm_music.midi.track_reader import PHRASE

OUT = Path("src/lstm_music/data/bach.zip")
SUFFIXES = (".mxl", ".xml")  # three in Humdrum are second encodings, with rights reserved
VOICES = ("Soprano", "Alto", "Tenor", "Bass")
# Tonics a fifth apart, Fb to B#. Each sharp in the key signature is one step to the right.
FIFTHS = [letter + accidental for accidental in ("b", "", "#") for letter in "FCGDAEB"]


def main() -> None:
    """Write the archive, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    out = parser.parse_args().out
    check_music21()
    titles = find_titles()
    files = [(f"{path.stem}.mid", midi_of(path, titles)) for path in find_scores()]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(zip_files(files))
    print(f"{out}: {len(files)} pieces, {out.stat().st_size:,} bytes; bin/corpus counts its tokens")


def find_scores() -> list[Path]:
    """Return the Bach scores of the installed music21 in BWV order: bwv2.6 before bwv10.7.

    `getComposer("bach")` also lists `riemenschneider*.rntxt`: Roman-numeral analyses of chorales
    that are there as scores already.
    """
    from music21 import corpus

    paths = [Path(path) for path in corpus.getComposer("bach") if Path(path).suffix in SUFFIXES]

    def order(path: Path) -> list[tuple[int, str]]:
        pieces = re.findall(r"\d+|\D+", path.stem)
        return [(int(text), "") if text.isdigit() else (-1, text) for text in pieces]

    return sorted(paths, key=order)


def find_titles() -> dict[str, str]:
    """Return titles by name, `bwv269` -> `Aus meines Herzens Grunde`.

    The scores themselves carry none; music21's table of the Riemenschneider edition does.
    """
    from music21 import corpus

    chorales: Any = corpus.chorales
    table = chorales.ChoraleListRKBWV().byBWV
    # MIDI text is Latin-1 by custom: umlauts fit, the typographic apostrophe does not.
    return {f"bwv{bwv}": entry["title"].replace("’", "'") for bwv, entry in table.items()}


def midi_of(path: Path, titles: dict[str, str]) -> bytes:
    """Return a score as the bytes of a MIDI file; titles: by name.

    All parts share the first channel: a channel each would make the archive much larger.
    """
    score = read_score(path)
    measures = align_measures(score)
    title, tempo = titles.get(path.stem), find_tempo(score)
    events: list[tuple[int, Any]] = []
    if title:
        events.append((0, mido.MetaMessage("track_name", name=title)))
    events.append((0, mido.MetaMessage("key_signature", key=find_key(score))))
    if tempo is not None:
        events.append((0, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))))
    events += meter_messages(measures)
    parts = [read_part(part) for part in score.parts]
    last = max(note.end for notes in parts for note in notes)
    events += [(tick, mido.MetaMessage("marker", text=PHRASE)) for tick in phrase_ends(score, last)]
    tracks = [track_of(sorted(events, key=lambda event: event[0]))]
    for index, (part, notes) in enumerate(zip(score.parts, parts, strict=True)):
        name = part_name(part.partName, index, len(score.parts))
        tracks.append(part_track(mido.MetaMessage("track_name", name=name), notes))
    return file_of(tracks)


def part_name(written: str | None, index: int, parts: int) -> str:
    """Return the name in the score, tidied; four nameless parts are the voices of a chorale."""
    if written:
        return " ".join(written.split())
    return VOICES[index] if parts == len(VOICES) else f"Part {index + 1}"


def phrase_ends(score: Any, last: int) -> list[int]:
    """Return the ticks at which phrases end: the notes with a fermata, and the last one there.

    They are those of the part that has most of them: the others' are often left out. None where
    there is no fermata.
    """
    from music21 import expressions

    def ends(part: Any) -> set[int]:
        return {
            to_ticks(Fraction(note.offset) + Fraction(note.quarterLength))
            for note in part.flatten().notes
            if any(isinstance(mark, expressions.Fermata) for mark in note.expressions)
        }

    most = max(map(ends, score.parts), key=len)
    return sorted(most | {last}) if most else []


def find_key(score: Any) -> str:
    """Return the key of a score, such as `Em`.

    Sharps and flats are those most parts agree on. The mode is the first part's, where the scores
    keep it; where that part disagrees or states no mode, the last bass note decides.
    """
    from music21 import key

    found = (part.recurse().getElementsByClass(key.KeySignature).last() for part in score.parts)
    signatures = [signature for signature in found if signature is not None]
    sharps = Counter(signature.sharps for signature in signatures).most_common(1)[0][0]
    mode = getattr(signatures[0], "mode", None)
    if signatures[0].sharps != sharps or mode is None:
        last_bass = score.parts[-1].recurse().notes.last().pitches[0].pitchClass
        minor_tonic = (7 * sharps + 9) % 12  # each sharp moves the tonic up a fifth, from A
        mode = "minor" if last_bass == minor_tonic else "major"
    tonic: int = sharps + FIFTHS.index("A" if mode == "minor" else "C")
    return FIFTHS[tonic] + ("m" if mode == "minor" else "")


def find_tempo(score: Any) -> float | None:
    """Return the first tempo mark in quarters per minute; most scores have none."""
    from music21 import tempo

    mark = score.recurse().getElementsByClass(tempo.MetronomeMark).first()
    return None if mark is None else mark.getQuarterBPM()


if __name__ == "__main__":
    main()
