"""Piece -> a score: laid out by music21 as MusicXML, engraved by verovio as SVG.

Both are the optional extra `score`; they are loaded only when something is engraved.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lstm_music.errors import UserError, pip_install
from lstm_music.midi.piece import Piece
from lstm_music.rendering.musicxml import musicxml

PAGES = 2
BARS_A_PAGE = 64  # more never fit
OPTIONS = {
    "pageWidth": 2100,  # tenths of a millimetre: A4
    "pageHeight": 2970,
    "adjustPageHeight": True,  # a last page ends with its music, and one of many parts holds them
    "scale": 40,
    "footer": "none",
    "staffLineWidth": 0.2,  # visible on a small screen
    "svgViewBox": True,  # so that it fits the width it is given
    "xmlIdSeed": 1,  # the same piece gives the same file
}


def is_available() -> bool:
    """Return whether the extra `score` is installed."""
    return bool(find_spec("music21") and find_spec("verovio"))


def check_available() -> None:
    """Raise UserError where the extra `score` is not installed."""
    if not is_available():
        raise UserError(f"a score needs music21 and verovio: {pip_install('music21', 'verovio')}")


def draw_score(piece: Piece, path: Path, pages: int = PAGES) -> None:
    """Engrave the first pages of a piece one below the other; write an SVG file."""
    path.write_text(stacked(engrave(piece, pages)), "utf-8")


def engrave(piece: Piece, pages: int = PAGES) -> list[str]:
    """Return the first pages of a piece as SVG, black on nothing.

    Raises UserError where the extra `score` is not installed or the piece has no notes.
    """
    check_available()
    if not piece.tracks:
        raise UserError(f"'{piece.name}' has no notes to engrave: leave --svg out")
    import verovio

    verovio.enableLog(verovio.LOG_OFF)
    engraver = verovio.toolkit()
    engraver.setOptions(OPTIONS)
    engraver.loadData(musicxml(piece, pages * BARS_A_PAGE))
    most = min(pages, engraver.getPageCount())
    return [engraver.renderToSVG(page + 1) for page in range(most)]


def stacked(pages: Sequence[str]) -> str:
    """Return pages as one SVG on white paper, one below the other."""
    parts, width, height = [], 0, 0
    for page in pages:
        found = re.search(r'<svg viewBox="0 0 (\d+) (\d+)"', page)
        assert found is not None  # verovio writes it with OPTIONS
        width, tall = int(found[1]), int(found[2])
        place = f'<svg x="0" y="{height}" width="{width}" height="{tall}" {found[0][5:]}'
        parts.append(place + page[found.end() :])
        height += tall
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{"".join(parts)}</svg>\n'
    )
