"""Build the bundled Bach corpus: the scores music21 carries, as one small zip of MIDI files.

    python tools/build_bach.py [--out src/lstm_music/data/bach.zip]

The archive holds one standard MIDI file per score: type 1, 480 ticks per quarter note, a
conductor track (title, meter, key, tempo), then one track per part in score order. Ties are
joined, grace notes dropped, repeats played out. Beside the archive goes a note of the same name
ending in `.md`, with the provenance and with every count measured on the files just written, so
that the two cannot drift apart. The same music21 and the same zlib give the same bytes.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import mido

from lstm_music.corpus.classical.build import zip_files
from lstm_music.corpus.classical.notation import (
    VELOCITY,
    MeterChange,
    Note,
    align_measures,
    join_ties,
    meter_changes,
    separate_notes,
    to_ticks,
)
from lstm_music.midi.piece import TICKS_PER_QUARTER

GRID = 60  # a thirty-second note; durations off this grid are worth a line in the note
SIZE_LIMIT = 300_000
DEFAULT_OUT = Path("src/lstm_music/data/bach.zip")
INSTALL_HINT = "pip install 'lstm-music[classical]'"

# Tonics a fifth apart, Fb to B#. Each sharp in the key signature is one step to the right.
FIFTHS = [letter + accidental for accidental in ("b", "", "#") for letter in "FCGDAEB"]


class BuildError(Exception):
    """Something the user can put right, said in one line."""


@dataclass
class Part:
    """One part of a piece: its name and its notes in order of start and pitch."""

    name: str
    notes: list[Note]


@dataclass
class Piece:
    """One score made ready for MIDI, with what was unusual about it."""

    name: str
    title: str
    parts: list[Part]
    meters: list[MeterChange]
    key: str
    quarters_per_minute: float | None
    expanded: bool = False
    bad_repeat: bool = False
    realigned: bool = False
    graces: int = 0
    cut: int = 0


@dataclass
class Counts:
    """What the finished MIDI files hold; the numbers of the provenance note."""

    notes: int = 0
    tokens: int = 0
    vocabulary: set[str] = field(default_factory=set)
    parts: Counter[int] = field(default_factory=Counter)
    off_grid: dict[int, list[str]] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------
# music21: finding and reading the scores
# ---------------------------------------------------------------------------------------------


def find_scores(with_kern: bool) -> list[Path]:
    """List the Bach scores of the installed music21 in BWV order.

    `getComposer("bach")` also lists `riemenschneider*.rntxt`: Roman-numeral analyses of chorales
    that are there as scores already. Without them 413 files are left.
    """
    from music21 import corpus

    wanted = {".mxl", ".xml"} | ({".krn"} if with_kern else set())
    paths = [Path(path) for path in corpus.getComposer("bach") if Path(path).suffix in wanted]
    if not paths:
        raise BuildError(f"the installed music21 has no corpus; {INSTALL_HINT}")
    return sorted(paths, key=lambda path: bwv_order(piece_name(path)))


def piece_name(path: Path) -> str:
    """Name a piece after its score; a Humdrum twin of a MusicXML score gets `-krn` added."""
    return path.stem + ("-krn" if path.suffix == ".krn" else "")


def bwv_order(name: str) -> list[tuple[int, str]]:
    """Sort key that puts bwv2.6 before bwv10.7: runs of digits compare as numbers."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(int(text), "") if text.isdigit() else (-1, text) for text in pieces]


def read_piece(path: Path, titles: dict[str, str]) -> Piece:
    """Read one score and turn it into notes on the tick grid."""
    from music21 import converter, repeat

    written: Any = converter.parse(path, forceSource=True)  # no cache of an older music21
    bad_repeat = False
    try:
        played = written.expandRepeats()
    except repeat.ExpanderException:
        played, bad_repeat = written, True
    before = measure_starts(played)
    measures = align_measures(played)
    piece = Piece(
        name=piece_name(path),
        title=titles.get(path.stem, ""),
        parts=[],
        meters=meter_changes(measures),
        key=find_key(played),
        quarters_per_minute=find_tempo(written),
        expanded=played.duration.quarterLength > written.duration.quarterLength,
        bad_repeat=bad_repeat,
        realigned=measure_starts(played) != before,
    )
    for index, part in enumerate(played.parts):
        piece.parts.append(read_part(part, index, len(played.parts), piece))
    return piece


def measure_starts(score: Any) -> list[list[Any]]:
    """List where the measures of each part start, in quarters."""
    return [
        [measure.offset for measure in part.getElementsByClass("Measure")] for part in score.parts
    ]


def find_titles() -> dict[str, str]:
    """Map score names such as `bwv269` to titles such as `Aus meines Herzens Grunde`.

    The scores themselves carry no titles; music21's table of the Riemenschneider edition does.
    """
    from music21 import corpus

    chorales: Any = corpus.chorales
    table = chorales.ChoraleListRKBWV().byBWV
    # MIDI text is Latin-1 by custom: umlauts fit, the typographic apostrophe does not.
    return {f"bwv{bwv}": entry["title"].replace("’", "'") for bwv, entry in table.items()}


def read_part(part: Any, index: int, number_of_parts: int, piece: Piece) -> Part:
    """Collect the notes of one part, ties joined and grace notes left out."""
    notes: list[Note] = []
    tied: set[Note] = set()
    for element in part.flatten().notes:
        if element.duration.isGrace:
            piece.graces += len(element.pitches)
            continue
        start = to_ticks(element.offset)
        end = to_ticks(Fraction(element.offset) + Fraction(element.quarterLength))
        for single in element.notes if element.isChord else [element]:
            note = Note(start, end, single.pitch.midi)
            notes.append(note)
            if single.tie is not None and single.tie.type in ("start", "continue"):
                tied.add(note)
    joined = join_ties(notes, tied)
    separate = separate_notes(joined)
    piece.cut += len(set(joined) - set(separate))
    return Part(part_name(part.partName, index, number_of_parts), separate)


def part_name(written: str | None, index: int, number_of_parts: int) -> str:
    """Tidy the name in the score; four nameless parts are the four voices of a chorale."""
    if written:
        return " ".join(written.split())
    voices = ("Soprano", "Alto", "Tenor", "Bass")
    return voices[index] if number_of_parts == len(voices) else f"Part {index + 1}"


def find_key(score: Any) -> str:
    """Name the key of a score, such as `Em`.

    Sharps and flats are those most parts agree on. The mode is the first part's, where the scores
    keep it; where that part disagrees or states no mode, the last bass note decides.
    """
    from music21 import key

    found = (part.recurse().getElementsByClass(key.KeySignature).last() for part in score.parts)
    signatures = [signature for signature in found if signature is not None]
    if not signatures:
        raise BuildError("a score has no key signature")
    sharps = Counter(signature.sharps for signature in signatures).most_common(1)[0][0]
    mode = getattr(signatures[0], "mode", None)
    if signatures[0].sharps != sharps or mode is None:
        last_bass = score.parts[-1].recurse().notes.last().pitches[0].pitchClass
        minor_tonic = (7 * sharps + 9) % 12  # each sharp moves the tonic up a fifth, from A
        mode = "minor" if last_bass == minor_tonic else "major"
    tonic: int = sharps + FIFTHS.index("A" if mode == "minor" else "C")
    return FIFTHS[tonic] + ("m" if mode == "minor" else "")


def find_tempo(score: Any) -> float | None:
    """Read the first tempo mark in quarters per minute; most scores have none."""
    from music21 import tempo

    mark = score.recurse().getElementsByClass(tempo.MetronomeMark).first()
    return None if mark is None else mark.getQuarterBPM()


# ---------------------------------------------------------------------------------------------
# Writing MIDI
# ---------------------------------------------------------------------------------------------


def to_midi(piece: Piece) -> bytes:
    """Write a piece as the bytes of a MIDI file: the conductor track, then one track per part."""
    tracks = [conductor_track(piece)]
    tracks += [part_track(part) for part in piece.parts]
    buffer = io.BytesIO()
    mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER, tracks=tracks).save(file=buffer)
    return buffer.getvalue()


def conductor_track(piece: Piece) -> mido.MidiTrack:
    """Write title, key, tempo and meters, which hold for all parts."""
    track = mido.MidiTrack([mido.MetaMessage("key_signature", key=piece.key)])
    if piece.title:
        track.insert(0, mido.MetaMessage("track_name", name=piece.title))
    if piece.quarters_per_minute is not None:
        microseconds = mido.bpm2tempo(piece.quarters_per_minute)
        track.append(mido.MetaMessage("set_tempo", tempo=microseconds))
    now = 0
    for tick, numerator, denominator in piece.meters:
        track.append(
            mido.MetaMessage(
                "time_signature", numerator=numerator, denominator=denominator, time=tick - now
            )
        )
        now = tick
    return track


def part_track(part: Part) -> mido.MidiTrack:
    """Write the name and the notes of one part.

    All parts share the first channel: a channel each would take the archive over its size limit.
    """
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=part.name)])
    # Tuples sort as wanted: by tick, then note-off (0) before note-on (1), then pitch.
    events = sorted(
        event
        for note in part.notes
        for event in ((note.start, 1, note.pitch), (note.end, 0, note.pitch))
    )
    now = 0
    for tick, is_on, pitch in events:
        kind, velocity = ("note_on", VELOCITY) if is_on else ("note_off", 0)
        track.append(mido.Message(kind, note=pitch, velocity=velocity, time=tick - now))
        now = tick
    return track


# ---------------------------------------------------------------------------------------------
# Measuring and the provenance note
# ---------------------------------------------------------------------------------------------


def count_files(files: Iterable[tuple[str, bytes]]) -> Counts:
    """Count notes and message tokens in the MIDI files as a reader would meet them."""
    counts = Counts()
    for name, content in files:
        tracks = mido.MidiFile(file=io.BytesIO(content)).tracks[1:]
        counts.parts[len(tracks)] += 1
        for track in tracks:
            count_track(track, name, counts)
    return counts


def count_track(track: mido.MidiTrack, name: str, counts: Counts) -> None:
    """Add the message tokens of one track: `note-on-P-D` or `note-off-P-D` for each message.

    P is the pitch, D the ticks since the last note message of the track or since its start.
    """
    for message in track:
        if message.is_meta:
            continue
        kind = message.type.replace("_", "-")
        counts.tokens += 1
        counts.notes += kind == "note-on"
        counts.vocabulary.add(f"{kind}-{message.note}-{message.time}")
        if message.time % GRID:
            names = counts.off_grid.setdefault(message.time, [])
            if name not in names:
                names.append(name)


def write_note(pieces: Sequence[Piece], counts: Counts, with_kern: bool, version: str) -> str:
    """Compose the provenance note that lies beside the archive."""
    per_part = ", ".join(f"{parts} parts in {n}" for parts, n in sorted(counts.parts.items()))
    kern = [piece.name for piece in pieces if piece.name.endswith("-krn")]
    option = "" if with_kern else " --without-kern"
    return NOTE.format(
        version=version,
        ticks=TICKS_PER_QUARTER,
        velocity=VELOCITY,
        install=INSTALL_HINT,
        command=f"python tools/build_bach.py{option}",
        pieces=len(pieces),
        notes=counts.notes,
        tokens=counts.tokens,
        unique=len(counts.vocabulary),
        per_part=per_part,
        off_grid=describe_off_grid(counts.off_grid),
        expanded=sum(piece.expanded for piece in pieces),
        bad_repeat=listing(piece.name for piece in pieces if piece.bad_repeat),
        realigned=listing(piece.name for piece in pieces if piece.realigned),
        graces=sum(piece.graces for piece in pieces),
        grace_pieces=listing(piece.name for piece in pieces if piece.graces),
        cut=sum(piece.cut for piece in pieces),
        cut_pieces=listing(piece.name for piece in pieces if piece.cut),
        tempos=sum(piece.quarters_per_minute is not None for piece in pieces),
        untitled=sum(not piece.title for piece in pieces),
        kern=KERN_KEPT.format(kern=listing(kern)) if kern else KERN_LEFT_OUT,
    )


def listing(names: Iterable[str]) -> str:
    """Join names as code in prose, or say `none`."""
    return ", ".join(f"`{name}`" for name in names) or "none"


def describe_off_grid(off_grid: dict[int, list[str]]) -> str:
    """Say which deltas are no multiple of a thirty-second note, and where they come from."""
    if not off_grid:
        return f"Every delta is a multiple of {GRID} ticks, a thirty-second note: no triplets."
    lines = [f"{delta} ({listing(names)})" for delta, names in sorted(off_grid.items())]
    return f"Deltas that are no multiple of {GRID} ticks: " + "; ".join(lines) + "."


NOTE = """\
# The bundled Bach corpus

`bach.zip` holds {pieces} pieces by Johann Sebastian Bach, most of them chorales in four parts, as
standard MIDI files. It was made from the scores in the corpus of **music21 {version}** with

```
{command}
```

which also wrote this note; `{install}` brings music21. The numbers
are measured on the files in the archive.

## What is in it

| | |
|---|---:|
| pieces | {pieces} |
| notes | {notes:,} |
| message tokens | {tokens:,} |
| unique message tokens | {unique:,} |

- Parts per piece, the conductor track not counted:
  {per_part}.
- A message token is `note-on-P-D` or `note-off-P-D`: P the pitch, D the ticks since the last note
  message of the same track. Special tokens such as the end of a track are not counted.
- {off_grid}
- Files are type 1, {ticks} ticks per quarter. The first track holds title, key, meter and tempo;
  then comes one track per part, in score order. Every note has velocity {velocity}. All parts share
  the first channel: where two of them meet in a unison, a player that ignores tracks ends both
  notes at the first note-off.
- The scores are all those `music21.corpus.getComposer("bach")` lists except the 20 files
  `riemenschneider*.rntxt`, which are Roman-numeral analyses. Among them is one piece that is no
  chorale: `bwv846`, the first prelude of the Well-Tempered Clavier.
- The archive is in BWV order (`bwv2.6` before `bwv10.7`).

## What was changed

- Ties are joined; ornaments and fermatas are not played out.
- Repeats are played out ({expanded} pieces). Kept as written because the repeat in the score is
  badly formed: {bad_repeat}.
- Grace notes dropped: {graces}, counted after repeats, in {grace_pieces}.
- A pitch never overlaps itself within a track: a note ends where another voice of the same staff
  strikes its pitch. Notes cut short by this: {cut}, in {cut_pieces}.
- Parts moved back into step where the score gives a measure different lengths: {realigned}.
- A pickup is a short first bar (1/4 before the 4/4), so that bar lines stand where written.
- Tempo is given where the score gives one ({tempos} pieces); the others have none, and players
  take 120.
- Key signatures are the scores' own: what most parts of the score say, with the first part's major
  or minor. That is rough where a chorale melody is modal.
- Titles come from music21's table of the Riemenschneider edition; the {untitled} pieces it does not
  know have none.

{kern}

Some chorales are there in two versions (such as `bwv18.5-lz` and `bwv18.5-w`, or `bwv248.23-2` and
`bwv248.23-s`; `bwv197.7-a` and `bwv398` are the same to the note), and Bach set many melodies more
than once. Whoever splits the corpus at random has near relatives on both sides of the split.

## Rights

The music is in the public domain: Bach died in 1750.

The encodings have terms of their own. What the installed music21 says about its corpus:

- `music21/corpus/license.txt`: the creators of music21 "assume no copyright or change in
  licensing for content distributed in the corpus". The compositions "are distributed with the
  permission of the encoders (and, where needed, the composers or arrangers) and where permitted
  under United States copyright law. Some encodings included in the corpus may not be used for
  commercial uses or have other restrictions: please see the licenses embedded in individual
  compositions or directories for more details." To the best of their knowledge each piece "is
  either out of copyright in the United States or is licensed for use, though there may be
  restrictions on commercial use"; the works "may or may not be free in your jurisdiction".
- The package's README, section "License Coverage and Other/Prior Licenses" (in the `METADATA` of
  the installed distribution): music21's code is under the BSD 3-clause license; the scores in the
  corpus "have their own copyrights and licenses". The underlying music "is believed to be in the
  public domain in the US, EU, and Canada (and most of the world) and the encodings are also
  either public domain or used by permission."
- The folder of the Bach scores has no license file. Of its 410 MusicXML scores 362 print
  "PDF © 2004 Margaret Greentree" or the like, most of them with "used by permission"; the other
  48 say nothing about rights.

So the license of this repository covers its code; for these files the terms above hold.
"""

KERN_TERMS = """\
`bwv277.krn`, `bwv281.krn` and `bwv366.krn` are second encodings, in Humdrum, of chorales that the
corpus also has as MusicXML. Their headers read "Copyright 1994, Center for Computer Assisted
Research in the Humanities", "Rights to all derivative electronic formats reserved" and "Refer to
licensing agreement for further details".
"""

KERN_KEPT = (
    KERN_TERMS
    + """They are in the archive as {kern};
`--without-kern` builds it without them, and no chorale is lost."""
)

KERN_LEFT_OUT = KERN_TERMS + "They are left out for that reason; no chorale is lost."


# ---------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------


def build(out: Path, with_kern: bool) -> str:
    """Build archive and note, and return the line that sums them up."""
    import music21

    titles = find_titles()
    pieces: list[Piece] = []
    for path in find_scores(with_kern):
        try:
            pieces.append(read_piece(path, titles))
        except BuildError as error:
            raise BuildError(f"{path.name}: {error}") from error
    files = [(f"{piece.name}.mid", to_midi(piece)) for piece in pieces]
    archive = zip_files(files)
    if len(archive) > SIZE_LIMIT:  # another zlib may pack a little less tightly: no error
        print(f"warning: the archive is over {SIZE_LIMIT:,} bytes", file=sys.stderr)
    counts = count_files(files)
    note = write_note(pieces, counts, with_kern, music21.__version__)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(archive)
    out.with_suffix(".md").write_text(note, encoding="utf-8")
    return (
        f"{out}: {len(pieces)} pieces, {counts.notes:,} notes, {counts.tokens:,} message tokens "
        f"({len(counts.vocabulary):,} unique), {len(archive):,} bytes"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after an error of one line."""
    parser = argparse.ArgumentParser(description="Build the bundled Bach corpus from music21.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="default: %(default)s")
    parser.add_argument(
        "--without-kern",
        action="store_true",
        help="leave out three Humdrum duplicates whose headers reserve rights to conversions",
    )
    options = parser.parse_args(arguments)
    try:
        print(build(options.out, with_kern=not options.without_kern))
    except ImportError:
        print(f"error: music21 is needed to read the scores; {INSTALL_HINT}", file=sys.stderr)
        return 2
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
