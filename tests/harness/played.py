"""Music as pianists play it, in MIDI files like MAESTRO's: velocities, pedal, tempo changes."""

import io

import mido
import numpy as np

PEDAL = 64


def played_file(seed=0, notes=60, division=384, tracks=3, pedal=True, players=()):
    """The content of a file of a tempo track and others, and what is in it, in ticks.

    Notes are (start, end, pitch, velocity, channel) as keys are released, pedals (channel, down,
    up), and tempos (tick, microseconds a quarter note), of which there are three. The last track
    has a channel of its own. players: of each track a name, a program and a channel.
    """
    tracks = len(players) + 1 if players else tracks
    rng = np.random.default_rng(seed)
    tempos = [(0, 500_000), (division * 7 + 1, 431_017), (division * 19 + 5, 612_345)]
    midi = mido.MidiFile(type=1, ticks_per_beat=division)
    midi.tracks.append(
        _track([(tick, mido.MetaMessage("set_tempo", tempo=t)) for tick, t in tempos])
    )
    found, pedals = [], []
    for number in range(tracks - 1):
        channel, events, low = int(number == tracks - 2), [], 36 + 24 * number
        name, program, channel = players[number] if players else ("", None, channel)
        begin = division // 3
        for _ in range(notes):
            begin += int(rng.integers(1, division))
            length = int(rng.integers(5, 2 * division))
            pitch, velocity = low + int(rng.integers(24)), int(rng.integers(1, 128))
            events += [(begin, 1, pitch, velocity), (begin + length, 0, pitch, 64)]
            found.append((begin, begin + length, pitch, velocity, channel))
        messages = [
            (
                tick,
                mido.Message("note_on" if on else "note_off", note=p, velocity=v, channel=channel),
            )
            for tick, on, p, v in sorted(events)
        ]
        for down in range(division, begin, 3 * division) if pedal else ():
            up = down + int(rng.integers(division // 2, 2 * division))
            for tick, value in ((down, 30), (down + 2, 90), (down + 9, 127), (up, 20)):
                message = mido.Message(
                    "control_change", control=PEDAL, value=value, channel=channel
                )
                messages.append((tick, message))
            pedals.append((channel, down + 2, up))
        if players:
            change = mido.Message("program_change", program=program, channel=channel)
            messages = [(0, mido.MetaMessage("track_name", name=name)), (0, change), *messages]
        midi.tracks.append(_track(messages))
    content = io.BytesIO()
    midi.save(file=content)
    return content.getvalue(), found, pedals, tempos


def seconds_of(tick, tempos, division=384):
    """When a tick is heard."""
    total = 0.0
    for (begin, length), (end, _) in zip(tempos, [*tempos[1:], (tick, 0)], strict=True):
        total += max(0, min(end, tick) - begin) * length / division / 1e6
    return total


def _track(messages):
    track, last = mido.MidiTrack(), 0
    for tick, message in sorted(messages, key=lambda row: row[0]):
        track.append(message.copy(time=tick - last))
        last = tick
    return track
