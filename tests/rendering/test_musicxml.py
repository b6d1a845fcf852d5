"""Scores by part, and MusicXML that other programs read."""

import re
from dataclasses import replace
from itertools import chain
from xml.etree import ElementTree

import numpy as np
import pytest
from small import piece_of, track_of

from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.midi.writing import programs_of, tempo_of
from lstm_music.rendering import musicxml, notation, score
from lstm_music.rendering.instruments import PLACES

pytestmark = pytest.mark.skipif(
    not score.is_available(), reason="the extra 'score' (music21, verovio) is not installed"
)
VOICES = {"Soprano": 72, "Alto": 65, "Tenor": 57, "Bass": 45}
KIT = [(0, 60, 36), (0, 60, 42), (240, 300, 42), (480, 540, 38), (720, 780, 42), (960, 961, 36)]


def choir(**said):
    """Four voices of five bars with an upbeat, a note tied over a bar line, a change of meter."""
    beats = [(0, 480), (480, 960), (960, 2640), (2640, 3600), (3600, 5280), (5280, 6000)]
    tracks = [
        track_of([(start, end, low + n) for n, (start, end) in enumerate(beats)])
        for low in VOICES.values()
    ]
    meter = np.array([(0, 480), (480, 1920), (4320, 1440)], np.int32)
    settings = {"meter": meter, "parts": tuple(Part(name, 52) for name in VOICES), **said}
    return Piece("choir", tracks, **settings)


def band(**said):
    tracks = [
        track_of([(480 * n, 480 * n + 480, 60 + n) for n in range(8)]),
        track_of([(960 * n, 960 * n + 960, p) for n in range(4) for p in (40, 52, 64, 76)]),
        track_of(sorted(KIT)),
    ]
    parts = (Part("Flute", 73), Part("Piano", 0), Part("Kit", 0))
    return Piece("band", tracks, parts=parts, drums=(False, False, True), **said)


def exported(piece, tempo=None, program=None):
    played = musicxml.Played(tempo_of(piece, tempo), programs_of(piece, program))
    return musicxml.musicxml(piece, played=played)


def read(xml):
    from music21 import converter

    return converter.parse(xml, format="musicxml")


def notes_in(part):
    """The notes (start, end, pitch) in ticks of music21's part, ties joined; drums by place."""
    found = []
    for one in part.stripTies().flatten().notes:
        start, length = (round(x * 480) for x in (one.offset, one.quarterLength))
        for each in getattr(one, "notes", [one]):
            pitch = each.displayName if hasattr(each, "displayName") else each.pitch.midi
            found.append((start, start + length, pitch))
    return sorted(found)


def engraved(xml):
    """The MEI that verovio makes of MusicXML."""
    import verovio

    verovio.enableLog(verovio.LOG_OFF)
    engraver = verovio.toolkit()
    assert engraver.loadData(xml)
    mei = re.sub(r' xmlns(:\w+)?="[^"]*"', "", engraver.getMEI())
    return ElementTree.fromstring(re.sub(r"\bxml:id\b|\bxlink:", "x", mei))


def labels_of(mei):
    return [label.text for label in mei.iter("label")], [
        label.text for label in mei.iter("labelAbbr")
    ]


# Staves


def test_a_choir_has_a_named_staff_a_voice_in_a_bracket():
    mei = engraved(musicxml.musicxml(choir()))
    assert labels_of(mei) == ([*VOICES], ["S.", "A.", "T.", "B."])
    clefs = [(c.get("shape"), c.get("dis.place")) for c in mei.find(".//scoreDef").iter("clef")]
    assert clefs == [("G", None), ("G", None), ("G", "below"), ("F", None)]
    (group,) = [g for g in mei.iter("staffGrp") if g.find("grpSym[@symbol='bracket']") is not None]
    assert len(group.findall("staffDef")) == 4


def test_a_band_has_a_grand_staff_for_the_piano_alone_and_one_of_percussion():
    mei = engraved(musicxml.musicxml(band(sharps=2)))
    assert labels_of(mei)[0] == ["Flute", "Piano", "Kit"]
    clefs = [c.get("shape") for c in mei.find(".//scoreDef").iter("clef")]
    assert clefs == ["G", "G", "F", "perc"]
    keys = [staff.find("keySig") for staff in mei.find(".//scoreDef").iter("staffDef")]
    assert [key is not None and key.get("sig") == "2s" for key in keys] == [True] * 3 + [False]


def test_one_voice_stays_on_one_staff_however_far_it_goes():
    wide = track_of([(480 * n, 480 * n + 480, 40 + 40 * (n % 2)) for n in range(8)])
    alone = Piece("x", [wide], parts=(Part("Cello", 42),))
    two = Piece("x", [wide, wide], parts=(Part("Cello", 42), Part("", 42)))
    clefs = [
        [c.get("shape") for c in engraved(musicxml.musicxml(p)).find(".//scoreDef").iter("clef")]
        for p in (alone, two, replace(two, parts=()))
    ]
    assert [len(found) for found in clefs] == [2, 2, 4]


def test_abbreviations_are_short_and_none_is_anothers():
    names = ["Violin 1", "Violin 2", "Viola", "Violoncello", "Violone", "Soprano 1", "Bass", "Oboe"]
    assert musicxml.abbreviations(names) == [
        "Viol. 1", "Viol. 2", "Viola", "Violoncello", "Violone", "S. 1", "B.", "Oboe"
    ]  # fmt: skip
    assert musicxml.abbreviations(["Clarinet II", "1", "笛"]) == ["Clar. II", "1", "笛"]


def test_names_that_xml_refuses_are_engraved():
    parts = (Part("a\x00b\x1b<&>"), Part(""), *choir().parts[2:])
    piece = replace(choir(parts=parts), name="x\x01")
    assert labels_of(engraved(musicxml.musicxml(piece)))[0][:2] == ["a b <&>", "part 2"]


def test_long_names_have_room_beside_the_staves():
    name = "Trumpet in D, which is a long name of a part"
    piece = choir(parts=tuple(Part(f"{n} {name}") for n in range(4)))
    assert labels_of(engraved(musicxml.musicxml(piece)))[0][0] == "0 Trumpet in D,…"
    assert read(exported(piece)).parts[0].partName == "0 Trumpet in D, which is a long…"


@pytest.mark.parametrize("parts", [13, 30])
def test_a_system_of_many_parts_is_on_the_page(parts):
    notes = [(480 * n, 480 * n + 480, 60 + n % 7) for n in range(16)]
    piece = Piece("x", [track_of(notes)] * parts, parts=tuple(Part(f"{n}") for n in range(parts)))
    (page,) = score.engrave(piece, 1)
    assert page.count('class="staff"') % parts == 0 and page.count('class="staff"')
    lowest = max(int(y) for y in re.findall(r'<path d="M\d+ (\d+) L\d+ \1"', page))
    height = int(re.match(r'<svg viewBox="0 0 840 (\d+)"', page)[1])
    assert lowest < height * 2100 * 10 / 840


# Fermatas


def fermatas(xml):
    """Where fermatas are, by part: the tick at which their notes end."""
    found = []
    for part in read(xml).parts:
        flat = part.flatten()
        found.append(
            [
                round((one.offset + one.quarterLength) * 480)
                for one in flat.notes
                if any(type(e).__name__ == "Fermata" for e in one.expressions)
            ]
        )
    return found


def test_a_fermata_stands_on_the_notes_that_end_with_a_phrase():
    phrases = np.array([2640, 6000], np.int32)
    piece = choir(phrases=phrases)
    held = track_of([(0, 480, 50), (480, 3600, 52), (3600, 6000, 53)])
    piece = replace(piece, tracks=[*piece.tracks[:3], held])
    assert fermatas(musicxml.musicxml(piece)) == [[2640, 6000]] * 3 + [[6000]]
    assert len(engraved(musicxml.musicxml(piece)).findall(".//fermata")) == 7
    assert fermatas(musicxml.musicxml(choir())) == [[]] * 4
    through = choir(phrases=np.array([2400], np.int32))  # a bar line that all are tied over
    assert fermatas(musicxml.musicxml(through)) == [[]] * 4
    late = replace(piece, phrases=np.array([2633, 90_000], np.int32))  # played, not written
    assert fermatas(musicxml.musicxml(late)) == [[2640]] * 3 + [[]]


def test_a_merged_piece_has_its_fermatas_too():
    piece = Piece("x", [track_of([(0, 960, 76), (0, 480, 48), (480, 960, 50)])])
    piece = replace(piece, phrases=np.array([960], np.int32))
    assert sorted(map(sorted, fermatas(musicxml.musicxml(piece)))) == [[960], [960]]


# MusicXML


@pytest.mark.parametrize(
    "piece",
    [choir(), replace(choir(), drums=(False,) * 4), piece_of(3, 1), piece_of(4, 3, 30)],
    ids=["choir", "no drums", "single", "three"],
)
def test_what_is_exported_reads_the_same(piece):
    """Notes, parts and measures, in music21; notes in verovio."""
    xml = exported(piece)
    parts = read(xml).parts
    steps = notation.steps_of([notes_of(track) for track in piece.tracks])
    expected = [
        sorted(map(tuple, notation.quantised(notes_of(t), steps).tolist())) for t in piece.tracks
    ]
    end = max(end for notes in expected for _, end, _ in notes)
    bars = notation.bars_of_piece(piece, end)
    if len(parts) == len(piece.tracks):
        assert [notes_in(part) for part in parts] == expected
    else:  # grand staves
        assert sorted(chain(*map(notes_in, parts))) == sorted(chain(*expected))
    assert {len(part.getElementsByClass("Measure")) for part in parts} == {len(bars)}
    assert len(ElementTree.fromstring(xml[xml.index("<score-p") :]).findall("part")) == len(
        expected
    )
    onsets = [n for n in engraved(xml).iter("note") if n.get("grace") is None]
    tied = len(engraved(xml).findall(".//tie"))
    assert len(onsets) - tied == sum(map(len, expected))


def test_an_export_tells_names_programs_key_meter_and_tempo():
    tempo = np.array([(0, 500_000), (2640, 750_000)], np.int32)
    xml = exported(choir(sharps=-3, tempo=tempo), program=[52, 73, 0, 127])
    piece = read(xml)
    assert [part.partName for part in piece.parts] == [*VOICES]
    assert [part.getInstrument().midiProgram for part in piece.parts] == [52, 73, 0, 127]
    assert {key.sharps for key in piece.recurse().getElementsByClass("KeySignature")} == {-3}
    first = piece.parts[0]
    measures = list(first.getElementsByClass("Measure"))
    assert [m.duration.quarterLength for m in measures] == [1, 4, 4, 3, 3]
    assert [m.number for m in measures] == [0, 1, 2, 3, 4]
    assert xml.count('<measure implicit="yes" number="0">') == 4
    meters = [m.timeSignature and m.timeSignature.ratioString for m in measures]
    assert meters == ["4/4", None, None, "3/4", None]
    marks = first.flatten().getElementsByClass("MetronomeMark")
    assert [(mark.offset * 480, mark.number) for mark in marks] == [(0, 120), (2640, 80)]
    root = ElementTree.fromstring(xml[xml.index("<score-p") :])
    assert [c.text for c in root.iter("midi-channel")] == ["1", "2", "3", "4"]
    assert sum(tie.get("type") == "start" for tie in root.iter("tie")) == 12  # three a voice


def test_without_a_signature_the_key_is_an_estimate():
    scale = [62, 64, 66, 67, 69, 71, 73, 74, 66, 69]
    track = track_of([(480 * n, 480 * n + 480, pitch) for n, pitch in enumerate(scale)])
    xml = exported(Piece("D", [track]))
    assert {key.sharps for key in read(xml).recurse().getElementsByClass("KeySignature")} == {2}


def test_drums_are_exported_as_the_sounds_that_they_are():
    xml = exported(band())
    root = ElementTree.fromstring(xml[xml.index("<score-p") :])
    player, part = root.findall("part-list/score-part")[2], root.findall("part")[2]
    assert [c.text for c in player.iter("midi-channel")] == ["10"] * 3
    sounds = {
        m.get("id"): int(m.find("midi-unpitched").text) - 1 for m in player.iter("midi-instrument")
    }
    assert {s.get("id") for s in player.iter("score-instrument")} == {*sounds}
    hits = [n for n in part.iter("note") if n.find("unpitched") is not None]
    assert [sounds[hit.find("instrument").get("id")] for hit in hits] == [p for _, _, p in KIT]
    heard = [(start, name) for start, _, name in notes_in(read(xml).parts[-1])]
    assert heard == sorted((start, PLACES[pitch].name) for start, _, pitch in KIT)
    lasting = {(start, end) for start, end, _ in notes_in(read(xml).parts[-1])}
    assert sorted(lasting) == [(0, 240), (240, 480), (480, 720), (720, 960), (960, 1440)]
    places = [hit.find("unpitched/display-step").text for hit in hits]
    assert places == [PLACES[p].name[0] for _, _, p in KIT]
    assert len(engraved(xml).findall(".//note")) == 8 + 16 + 6


def test_an_export_of_many_parts_is_quiet_and_the_same_each_time(capfd):
    notes = [(480 * n, 480 * n + 480, 60 + n % 7) for n in range(4)]
    piece = Piece("x", [track_of(notes)] * 20, parts=tuple(Part(f"p{n}", n) for n in range(20)))
    xml = exported(piece)
    assert exported(piece) == xml
    assert len(read(xml).parts) == 20
    score.engrave(piece)
    assert capfd.readouterr() == ("", "")
