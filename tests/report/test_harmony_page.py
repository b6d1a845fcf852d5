"""The page that harmonises, operated: keys, mouse, fingers, files, MIDI keyboards."""

import json

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from small import small_corpus, small_trainer, track_of
from test_harmonise_browser import BAR, NAMES, QUARTER, piece_of, tune_of

from lstm_music.errors import UserError
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.midi.timing import signature_of
from lstm_music.report.page import RunReport, harmony_page, page
from lstm_music.runs.checkpoint import read_checkpoint, read_run
from lstm_music.runs.opened import bundled_model
from lstm_music.sampling.craft import RANGES

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here to run the page: apt-get install chromium"
)
STATUS = "byId('harmonise-status').textContent"
NOTES = "harmoniser.grid.notes"
SHIFT = 8  # a modifier, as DevTools numbers them


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "harmony.html"
    path.write_text(harmony_page(read_checkpoint(bundled_model()), "Bach"), "utf-8")
    return path


@pytest.fixture(scope="module")
def loaded(path):
    with Browser() as browser:
        browser.open(path)
        yield browser
        assert browser.complaints == []
        assert len(browser.requests) == 1


@pytest.fixture
def opened(loaded, path):
    loaded.requests.clear()
    loaded.open(path)
    loaded.wait("typeof harmoniser === 'object' && harmoniser !== null")
    return loaded


def choose(browser, name, value):
    browser.run(f"byId('harmonise-{name}').value = {json.dumps(value)}")
    browser.run(f"byId('harmonise-{name}').dispatchEvent(new Event('change'))")


def harmonised(browser):
    """What the page makes of its tune: notes (start, end, pitch, part)."""
    browser.press("#harmonise-go")
    browser.wait("harmoniser.made")
    return browser.run("harmoniser.made.notes")


def type_keys(browser, *keys, shift=False):
    browser.run("byId('harmonise-grid').focus()")
    for key in keys:
        asked = {"key": key, "modifiers": SHIFT * shift}
        browser.page("Input.dispatchKeyEvent", type="keyDown", **asked)
        browser.page("Input.dispatchKeyEvent", type="keyUp", **asked)


def point(browser, tick, pitch):
    """Where a tick and a pitch are on the screen."""
    browser.run("byId('harmonise-grid').scrollIntoView({ block: 'center' })")
    browser.run("byId('harmonise-box').scrollLeft = 0")
    return browser.run(
        f"""(() => {{
            const {{ left, top }} = byId("harmonise-grid").getBoundingClientRect();
            const {{ scale, high }} = harmoniser.grid;
            return {{ x: left + {tick} * scale + 3, y: top + (high - {pitch} + 0.5) * ROW }};
        }})()"""
    )


def drag(browser, start, stop, pitch):
    """Press the mouse at a tick, and let it go at another."""
    there = point(browser, start, pitch)
    held = {"button": "left", "clickCount": 1}
    browser.page("Input.dispatchMouseEvent", type="mousePressed", **there, **held)
    there = point(browser, stop, pitch)
    if stop != start:
        browser.page("Input.dispatchMouseEvent", type="mouseMoved", **there, button="left")
    browser.page("Input.dispatchMouseEvent", type="mouseReleased", **there, **held)


def open_file(browser, data, name="tune.mid"):
    """Choose a file."""
    browser.run(f"harmoniser.open(new File([new Uint8Array({[*data]})], '{name}'))")


def bytes_of(tmp_path, piece):
    write_midi(piece, tmp_path / "made.mid")
    return (tmp_path / "made.mid").read_bytes()


# A setting --------------------------------------------------------------------------------------


def test_a_press_harmonises_the_tune_that_is_there(opened):
    notes = harmonised(opened)
    tune = opened.run(NOTES)
    parts = opened.run("harmoniser.network.model.parts")
    by_voice = {name: [note[:3] for note in notes if parts[note[3]] == name] for name in NAMES}
    assert sorted(by_voice["Soprano"]) == tune
    assert len(tune) == 30
    end = max(note[1] for note in tune)
    for name, (low, high) in zip(NAMES, RANGES, strict=True):
        own = sorted(by_voice[name])
        assert len(own) > 10 and max(note[1] for note in own) == end
        assert np.mean([low <= pitch <= high for *_, pitch in own]) > 0.9
    facts = opened.run("byId('harmonise-facts').textContent")
    assert facts.startswith("4 voices, 8 bars")
    legend = opened.run("[...byId('harmonise-legend').children].map((li) => li.textContent)")
    assert legend == [*NAMES]
    drawn = opened.run("byId('harmonise-roll').getContext('2d').getImageData(0, 0, 600, 200).data")
    assert len({*drawn.values()}) > 6  # colours of parts
    opened.press("#harmonise-another")
    opened.wait("harmoniser.made")
    assert opened.run("byId('harmonise-seed').value") == "1"
    assert opened.run("harmoniser.made.notes") != notes
    opened.run("byId('harmonise-seed').value = 0")
    assert harmonised(opened) == notes


def test_a_setting_is_heard_and_kept(opened):
    notes = harmonised(opened)
    opened.press("#harmonise-listen")
    opened.wait("harmoniser.roll.drawn[1] > QUARTER")
    assert opened.run("byId('harmonise-listen').textContent") == "Stop"
    opened.press("#harmonise-listen")
    assert opened.run("byId('harmonise-listen').textContent") == "Listen"
    opened.run("download = (bytes, name) => (saved = [[...bytes], name])")
    opened.press("#harmonise-save")
    data, name = opened.run("saved")
    piece = read_midi(bytes(data), "page")
    assert name == "harmonised-0.mid"
    assert [part.name for part in piece.parts] == [*NAMES]
    assert piece.meter.tolist() == [[0, BAR]]
    saved = sorted(note for track in piece.tracks for note in notes_of(track).tolist())
    assert saved == sorted(note[:3] for note in notes)


def test_six_eighths_are_two_beats(opened):
    choose(opened, "meter", "6/8")
    assert opened.run("byId('harmonise-grid').querySelectorAll('.beat').length") == 11
    harmonised(opened)
    opened.run("download = (bytes, name) => (saved = [[...bytes], name])")
    opened.press("#harmonise-save")
    piece = read_midi(bytes(opened.run("saved[0]")), "page")
    assert piece.meter.tolist() == [[0, 1440]]
    assert signature_of(1440, piece.beats) == (6, 8)
    choose(opened, "meter", "3/4")
    assert opened.run("harmoniser.grid.beat") == QUARTER
    open_file(opened, bytes(opened.run("saved[0]")))
    opened.wait("byId('harmonise-meter').value === '6/8'")


def test_a_setting_can_be_called_off(opened):
    opened.run("void (whole = harmoniser.harmonise())")
    assert opened.run("byId('harmonise-go').textContent") == "Cancel"
    opened.press("#harmonise-go")
    opened.run("whole")  # comes to its end
    assert opened.run("byId('harmonise-go').textContent") == "Harmonise"
    assert not opened.run("harmoniser.made")
    assert opened.run("byId('harmonise-listen').disabled")


def test_each_voice_may_have_the_tune(opened):
    for voice, name in enumerate(NAMES[1:], 1):
        choose(opened, "voice", voice)
        moved = opened.run(NOTES)
        low, high = RANGES[voice]
        assert all(low <= pitch <= high for *_, pitch in moved)
        assert ("octave" in opened.run(STATUS)) == (voice > 2)
        notes = harmonised(opened)
        part = opened.run("harmoniser.network.model.parts").index(name)
        assert sorted(note[:3] for note in notes if note[3] == part) == moved


def test_an_empty_tune_is_told(opened):
    opened.press("#harmonise-clear")
    opened.press("#harmonise-go")
    assert opened.run(STATUS).startswith("There is no tune yet")
    assert opened.run("byId('harmonise-another').disabled")


def test_a_change_forgets_what_was_composed(opened):
    harmonised(opened)
    type_keys(opened, "Delete")
    assert not opened.run("harmoniser.made")
    assert opened.run("byId('harmonise-save').disabled")
    assert len(opened.run(NOTES)) == 29


# Entering a tune --------------------------------------------------------------------------------


def test_keys_enter_a_tune(opened):
    opened.press("#harmonise-clear")
    type_keys(opened, "ArrowUp", "ArrowUp", "ArrowRight", "ArrowRight", "Enter")
    assert opened.run(NOTES) == [[QUARTER, 2 * QUARTER, 69]]
    type_keys(opened, "ArrowRight", "ArrowRight", shift=True)
    assert opened.run(NOTES) == [[QUARTER, 3 * QUARTER, 69]]
    type_keys(opened, "ArrowLeft", shift=True)
    assert opened.run(NOTES) == [[QUARTER, 2 * QUARTER + 240, 69]]
    cursor = opened.run("byId('harmonise-cursor').textContent")
    assert cursor == "A4, bar 1, beat 2 · A4 sounds"
    choose(opened, "length", "240")
    type_keys(opened, "ArrowRight", "ArrowDown", " ")  # cuts the first
    assert opened.run(NOTES) == [[QUARTER, QUARTER + 240, 69], [QUARTER + 240, 960, 68]]
    type_keys(opened, "PageDown", "End")
    assert opened.run("harmoniser.grid.cursor.tick") == 8 * BAR - 240
    type_keys(opened, "Home", "ArrowRight", "ArrowRight", "Delete")
    assert opened.run(NOTES) == [[QUARTER + 240, 960, 68]]
    type_keys(opened, "Tab")  # leaves the grid
    assert opened.run("document.activeElement.id") != "harmonise-grid"


def test_a_mouse_enters_a_tune(opened):
    opened.press("#harmonise-clear")
    drag(opened, 0, 0, 67)
    assert opened.run(NOTES) == [[0, QUARTER, 67]]
    drag(opened, 960, 960 + 720, 71)
    assert opened.run(NOTES) == [[0, QUARTER, 67], [960, BAR, 71]]
    drag(opened, 960, 960 + 240, 71)  # shorter
    assert opened.run(NOTES)[1] == [960, 960 + 480, 71]
    drag(opened, 0, 0, 67)
    assert opened.run(NOTES) == [[960, 960 + 480, 71]]
    opened.press("#harmonise-more")
    assert opened.run("harmoniser.grid.bars") == 12


def test_fingers_enter_a_tune_on_a_phone(path):
    with Browser(360, 740) as phone:
        phone.page("Emulation.setTouchEmulationEnabled", enabled=True)
        phone.open(path)
        phone.wait("typeof harmoniser === 'object' && harmoniser !== null")
        assert phone.run("document.documentElement.scrollWidth") <= 360
        assert phone.run("byId('harmonise-box').scrollWidth") > 1000
        phone.press("#harmonise-clear")

        def touch(*ticks, pitch=69):
            for n, tick in enumerate(ticks):
                kind = "touchMove" if n else "touchStart"
                phone.page(
                    "Input.dispatchTouchEvent", type=kind, touchPoints=[point(phone, tick, pitch)]
                )
            phone.page("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

        touch(QUARTER)
        assert phone.run(NOTES) == [[QUARTER, 2 * QUARTER, 69]]
        touch(QUARTER, QUARTER + 240, 960, 1200)  # on a note: longer
        assert phone.run(NOTES) == [[QUARTER, 1440, 69]]
        touch(1440, 1200, 960, 480, 240, pitch=76)  # beside notes: scrolls
        assert phone.run(NOTES) == [[QUARTER, 1440, 69]]
        touch(QUARTER)
        assert phone.run(NOTES) == []
        assert phone.complaints == []


def test_a_midi_keyboard_enters_a_tune_step_by_step(opened):
    opened.run(
        """navigator.requestMIDIAccess = async () =>
            ({ inputs: new Map([[1, (keys = { name: "Piano" })]]) })"""
    )
    opened.press("#harmonise-clear")
    opened.press("#harmonise-keyboard")
    opened.wait(f"{STATUS}.includes('Piano')")
    opened.run(
        """[[0x90, 67, 80], [0x80, 67, 0], [0x90, 69, 80], [0x90, 69, 0], [0xfe], [0x93, 71, 1]]
            .forEach((data) => keys.onmidimessage({ data }))"""
    )
    assert opened.run(NOTES) == [[0, 480, 67], [480, 960, 69], [960, 1440, 71]]
    opened.run("navigator.requestMIDIAccess = async () => { throw new Error('no'); }")
    opened.press("#harmonise-keyboard")
    opened.wait(f"{STATUS}.startsWith('No MIDI keyboard')")


def test_a_browser_without_midi_offers_no_keyboard(opened):
    shown = "byId('harmonise-keyboard').getClientRects().length"
    assert opened.run(shown) == 1
    opened.run("Object.defineProperty(navigator, 'requestMIDIAccess', { value: undefined })")
    opened.run("new Harmoniser()")
    assert opened.run(shown) == 0


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", ["waltz", "pickup"])
def test_a_midi_file_is_read(opened, tmp_path, tune):
    notes, pickup, bar = tune_of(tune)
    low = track_of([(start, end, 45) for start, end, _ in notes[::2]])
    piece = piece_of(tune)
    parts = (Part("Bass"), Part("Soprano"))
    both = Piece(
        "", [low, piece.tracks[0]], parts=parts, meter=piece.meter, tempo=np.array([[0, 500000]])
    )
    open_file(opened, bytes_of(tmp_path, both))
    shift = bar - pickup if pickup else 0
    expected = [[start + shift, end + shift, pitch] for start, end, pitch in notes]
    opened.wait(f"{NOTES}.length === {len(expected)}")
    assert opened.run(NOTES) == expected
    assert opened.run("harmoniser.grid.bar") == bar
    told = opened.run("harmoniser.tune()")
    assert [told["notes"], told["pickup"], told["bar"]] == [
        [[*note] for note in notes],
        pickup,
        bar,
    ]
    made = harmonised(opened)
    assert sorted(note[:3] for note in made if note[3] == 0) == [[*note] for note in notes]


def test_a_midi_file_is_dropped(opened, tmp_path):
    data = [*bytes_of(tmp_path, piece_of("hymn"))]
    opened.run(
        f"""(() => {{
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([new Uint8Array({data})], "tune.mid"));
            const how = {{ dataTransfer, cancelable: true, bubbles: true }};
            const event = new DragEvent("drop", how);
            byId("harmonise-grid").dispatchEvent(event);
        }})()"""
    )
    notes = [[*note] for note in tune_of("hymn")[0]]
    opened.wait(f"{NOTES}.length === {len(notes)}")
    assert opened.run(NOTES) == notes


def test_of_two_notes_at_once_the_highest_stays(opened, tmp_path):
    track = track_of([(0, 960, 67), (480, 1440, 72), (480, 960, 64), (1930, 2400, 71)])
    open_file(opened, bytes_of(tmp_path, Piece("", [track])))
    opened.wait(f"{NOTES}.length === 3")
    assert opened.run(NOTES) == [[0, 480, 67], [480, 1440, 72], [1920, 2400, 71]]
    assert "highest" in opened.run(STATUS) and "sixteenths" in opened.run(STATUS)


def test_a_tune_out_of_range_is_moved_by_octaves(opened, tmp_path):
    track = track_of([(480 * n, 480 * n + 480, 36 + n) for n in range(4)])
    open_file(opened, bytes_of(tmp_path, Piece("", [track])))
    opened.wait(f"{NOTES}.length === 4")
    assert [pitch for *_, pitch in opened.run(NOTES)] == [72, 73, 74, 75]  # in its middle
    assert "3 octaves up" in opened.run(STATUS)


def test_a_file_of_ten_thousand_notes_is_cut(opened, tmp_path):
    track = track_of([(240 * n, 240 * n + 240, 60 + n % 12) for n in range(10_000)])
    open_file(opened, bytes_of(tmp_path, Piece("", [track])))
    opened.wait(f"{STATUS}.includes('first 48 bars')")
    assert len(opened.run(NOTES)) == 48 * 8


@pytest.mark.parametrize("data", [b"", b"MThd", b"RIFF" + bytes(40), b"MThd\0\0\0\6\0\1\0\1\1\xe0"])
def test_what_is_no_midi_file_is_told(opened, data):
    before = opened.run(NOTES)
    open_file(opened, data, "no.mid")
    opened.wait(f"{STATUS}.startsWith('no.mid has no notes')")
    assert opened.run(NOTES) == before


def test_a_torn_file_is_read_as_far_as_it_goes(opened, tmp_path):
    whole = bytes_of(tmp_path, piece_of("hymn"))
    for size in range(15, len(whole), 7):
        opened.run(f"readMidi(new Uint8Array({[*whole[:size]]}))")
    notes = opened.run(f"readMidi(new Uint8Array({[*whole[: len(whole) - 30]]})).tracks[0].length")
    assert 0 < notes < len(tune_of("hymn")[0])


# Which models, which tune -----------------------------------------------------------------------


def test_the_page_begins_with_the_tune_that_it_was_made_for(tmp_path):
    tune = piece_of("pickup", 2, -12)
    made = harmony_page(read_checkpoint(bundled_model()), "Bach", tune)
    (tmp_path / "page.html").write_text(made, "utf-8")
    notes, pickup, bar = tune_of("pickup")
    with Browser() as browser:
        browser.open(tmp_path / "page.html")
        browser.wait("typeof harmoniser === 'object' && harmoniser !== null")
        expected = [[s + bar - pickup, e + bar - pickup, p - 12] for s, e, p in notes]
        assert browser.run(NOTES) == expected
        assert browser.run("byId('harmonise-voice').value") == "2"
        assert browser.run("harmoniser.tune().pickup") == pickup
        found = browser.run("byId('harmonise-key').options[0].textContent")
        assert found == "F / Dm, as found"


def test_a_tune_that_no_grid_holds_stands_at_the_nearest_places(tmp_path):
    """Triplets in bars of five quarters, which the page doesn't offer."""
    track = track_of([(160 * n, 160 * n + 160, 67 + n % 5) for n in range(30)])
    tune = Piece("", [track], parts=(Part("Soprano"),), meter=np.array([[0, 2400]], np.int32))
    made = harmony_page(read_checkpoint(bundled_model()), "Bach", tune)
    (tmp_path / "page.html").write_text(made, "utf-8")
    with Browser() as browser:
        browser.open(tmp_path / "page.html")
        browser.wait("typeof harmoniser === 'object' && harmoniser !== null")
        assert browser.run("harmoniser.grid.bar") == BAR
        notes = browser.run(NOTES)
        assert all(start % 120 == end % 120 == 0 for start, end, _ in notes)
        assert len(harmonised(browser)) > len(notes) > 20
        assert browser.complaints == []


def test_another_model_is_refused(tmp_path):
    small_trainer(small_corpus(tmp_path / "music"), tmp_path / "run", max_steps=2).train()
    checkpoint = read_run(tmp_path / "run", pytest.fail)[0]
    with pytest.raises(UserError, match="trained with --parts"):
        harmony_page(checkpoint, "small")


def test_a_report_harmonises_where_its_network_fits(tmp_path):
    """Else it says how to; a model without voices has no such section."""
    small_trainer(small_corpus(tmp_path / "music"), tmp_path / "run", max_steps=2).train()
    small = RunReport("small", read_run(tmp_path / "run", pytest.fail)[0], [], 0.9, [])
    bach = RunReport("bach", read_checkpoint(bundled_model()), [], 0.8, [])
    both = page([small, bach], [], [])
    assert 'id="harmonise-go"' in both and 'href="#harmonise"' in both
    without = page([small, bach], [], [], most=500_000)
    assert 'id="harmonise-go"' not in without and "bin/harmonize --page" in without
    assert 'href="#harmonise"' not in page([small], [], [])
    assert len(without.encode()) <= 500_000
