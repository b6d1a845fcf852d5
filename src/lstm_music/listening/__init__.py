"""The blind listening test: clips, the study and its ratings, the server, the page, statistics."""

from importlib import resources


def page_file(name: str) -> str:
    """Return the text of a file of the folder report/browser/."""
    return resources.files("lstm_music.listening").joinpath("page", name).read_text("utf-8")
