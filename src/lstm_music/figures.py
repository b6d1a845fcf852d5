"""Every plot."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from lstm_music.midi import TICKS_PER_QUARTER, Piece, notes_of

BAR = 4 * TICKS_PER_QUARTER
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito 2008
NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def pitch_name(pitch: int) -> str:
    """Return a MIDI pitch's name: 60 is C4."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def piano_roll(piece: Piece, path: Path) -> None:
    """Draw a piece: time in bars of 4/4, pitch by name, a colour for each track; write a PNG."""
    tracks = [notes_of(track) for track in piece.tracks]
    notes = np.concatenate([*tracks, np.zeros((0, 3), np.int32)])
    bars = max(1, int(np.ceil(notes[:, 1].max(initial=1) / BAR)))
    figure = Figure(figsize=(min(24, 2 + 0.6 * bars), 4), layout="constrained")
    axes = figure.add_subplot()
    for number, track in enumerate(tracks):
        boxes = [
            [(start, pitch - 0.4), (end, pitch - 0.4), (end, pitch + 0.4), (start, pitch + 0.4)]
            for start, end, pitch in (track / [BAR, BAR, 1]).tolist()
        ]
        colour = COLOURS[number % len(COLOURS)]
        axes.add_collection(
            PolyCollection(boxes, facecolors=colour, edgecolors="white", linewidths=0.4)
        )
    low, high = int(notes[:, 2].min(initial=60)) - 2, int(notes[:, 2].max(initial=60)) + 2
    octaves = [p for p in range(low, high + 1) if p % 12 in (0, 7)]
    axes.set(xlim=(0, bars), ylim=(low, high), xlabel="bars", title=piece.name)
    axes.set_yticks(octaves, [pitch_name(p) for p in octaves])
    axes.set_xticks(range(0, bars + 1, max(1, bars // 16)))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=100)
