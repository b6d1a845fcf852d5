"""Build the bundled Bach corpus: the scores music21 carries, as one small zip of MIDI files.

    python tools/build_bach.py [--out src/lstm_music/data/bach.zip]

One standard MIDI file a score: a conductor track (title, key, tempo, meter, and a marker where a
phrase ends), then one track per part in score order, made as those of the corpus `classical`. The
same music21 and the same zlib give the same bytes. What was changed and whose it is stands in
bach.md, beside the archive, whose counts a test holds to it.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import mido

from lstm_music.corpus.classical.build import check_music21, zip_files
from lstm_music.corpus.classical.notation import (
    align_measures,
    file_of,
    find_key,
    meter_messages,
    part_track,
    phrase_ends,
    read_part,
    read_score,
    track_of,
)
from lstm_music.midi.track_reader import PHRASE

OUT = Path("src/lstm_music/data/bach.zip")
SUFFIXES = (".mxl", ".xml")  # three in Humdrum are second encodings, with rights reserved
VOICES = ("Soprano", "Alto", "Tenor", "Bass")


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


def find_tempo(score: Any) -> float | None:
    """Return the first tempo mark in quarters per minute; most scores have none."""
    from music21 import tempo

    mark = score.recurse().getElementsByClass(tempo.MetronomeMark).first()
    return None if mark is None else mark.getQuarterBPM()


if __name__ == "__main__":
    main()
