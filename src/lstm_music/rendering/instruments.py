"""Who plays what, in MusicXML: channels and programs, and each sound of the drums by its pitch."""

from collections.abc import Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, fromstring, indent, tostring

from lstm_music.midi.channels import Programs, channels_of
from lstm_music.midi.piece import Notes, Piece

DRUM_KIT = 0  # the program of General MIDI's


class Place(NamedTuple):
    """Where a drum is written, as if in the treble clef, and its note head."""

    name: str
    head: str


PLACES = [Place("E5", "normal")] * 128  # of each pitch; those unknown in a space of their own
for places, head in (
    ("35F4 36F4 38C5 40C5 41G4 43A4 45B4 47B4 48D5 50D5 60E5 61E5 62E5 63E5 64E5", "normal"),
    ("37C5 39C5 42G5 44D4 46G5 49A5 51F5 52A5 53F5 54G5 55A5 56E5 57A5 59F5 69G5 70G5", "x"),
):
    for place in places.split():
        PLACES[int(place[:2])] = Place(place[2:], head)


def with_instruments(xml: str, piece: Piece, programs: Programs, drums: Mapping[int, Notes]) -> str:
    """Return MusicXML of a piece with the channel and program of each part.

    programs: of each track, None of drums. drums: the notes (n, 3) in it of tracks that are, by
    start and pitch: each is said to be one of its part's sounds.
    """
    from music21.instrument import instrumentFromMidiProgram

    begin = xml.index("<score-partwise")
    root = fromstring(xml[begin:])
    channels = channels_of(piece.tracks, programs)
    for number, (player, part) in enumerate(
        zip(root.iter("score-part"), root.iter("part"), strict=True)
    ):
        program, channel = programs[number], channels[number]
        if program is not None:
            name = str(instrumentFromMidiProgram(program).instrumentName)
            _add_sounds(player, {"I1": name}, channel, program, {})
            continue
        pitches = drums[number][:, 2].tolist()
        names = {f"X{pitch}": f"Drum {pitch}" for pitch in sorted({*pitches})}
        _add_sounds(player, names, channel, DRUM_KIT, {f"X{pitch}": pitch for pitch in pitches})
        hits = [note for note in part.iter("note") if note.find("unpitched") is not None]
        for note, pitch in zip(hits, pitches, strict=True):
            at = [n for n, child in enumerate(note) if child.tag in ("duration", "tie")][-1]
            note.insert(at + 1, Element("instrument", id=f"{player.attrib['id']}-X{pitch}"))
    for upbeat in root.findall("part/measure[@number='0']"):
        upbeat.set("implicit", "yes")  # it isn't counted
    indent(root)
    return xml[:begin] + tostring(root, "unicode")


def _add_sounds(
    player: Element,
    names: Mapping[str, str],
    channel: int,
    program: int,
    pitches: Mapping[str, int],
) -> None:
    """Add a part's sounds, by identifier, to what MusicXML says of it: names, then numbers."""
    for sound, name in names.items():
        score = SubElement(player, "score-instrument", id=f"{player.attrib['id']}-{sound}")
        SubElement(score, "instrument-name").text = name
    for sound in names:
        midi = SubElement(player, "midi-instrument", id=f"{player.attrib['id']}-{sound}")
        SubElement(midi, "midi-channel").text = str(channel + 1)
        SubElement(midi, "midi-program").text = str(program + 1)
        if sound in pitches:
            SubElement(midi, "midi-unpitched").text = str(pitches[sound] + 1)
