"""The pictures of bin/reproduce's page: copied beside it, and small enough to be kept with it."""

import os
import shutil
from pathlib import Path

COLOURS = 64


class Pictures:
    """Copies figures of runs to a folder, and links them from a page's.

    runs: the folder of the runs. What isn't in it, but was copied before, stays.
    """

    def __init__(self, runs: Path, folder: Path, beside: Path) -> None:
        self.runs, self.folder, self.beside = runs, folder, beside

    def new(self, name: str) -> Path:
        """Return where to draw a figure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def link(self, name: str, words: str) -> str:
        """Return the link that shows a figure of the folder."""
        return f"![{words}]({Path(os.path.relpath(self.folder / name, self.beside)).as_posix()})"

    def copied(self, run: str, name: str, words: str) -> str | None:
        """Return the link that shows a copy of a run's figure, None where there is none."""
        source, target = self.runs / run / "figures" / name, self.folder / f"{run}-{name}"
        if source.is_file():
            shutil.copyfile(source, self.new(target.name))
            self.fewer_colours(target.name)
        return self.link(target.name, words) if target.is_file() else None

    def fewer_colours(self, name: str) -> None:
        """Make a PNG file of the folder small enough to be kept with the page."""
        if name.endswith(".png"):
            from PIL import Image

            with Image.open(self.folder / name) as image:
                image.quantize(COLOURS).save(self.folder / name, optimize=True)
