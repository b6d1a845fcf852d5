"""What figures show and what pages say, without how: the data of a Figure, the text of a report."""

import base64
import hashlib
import html
import json
import re

import numpy as np
from matplotlib.ticker import FixedLocator

UNSEEN = re.compile(r"<(style|script|svg)\b.*?</\1>|<(img|audio|meta)\b[^>]*>", re.S)
MIDI = re.compile(r'"data:audio/midi;base64,([^"]+)"')
DATA = re.compile(r'<script[^>]*id="data"[^>]*>(.*?)</script>', re.S)


def drawn(figure):
    """The data of each of a figure's axes, as JSON has it."""
    return [axes_of(axes) for axes in figure.axes]


def axes_of(axes):
    """Lines, boxes, points, images and words of axes."""
    texts = [[text.get_text(), *map(float, text.get_position())] for text in axes.texts]
    legend = axes.get_legend()
    return {
        "title": axes.get_title(),
        "labels": [axes.get_xlabel(), axes.get_ylabel()],
        "limits": [*map(float, axes.get_xlim()), *map(float, axes.get_ylim())],
        "ticks": [ticks_of(axis) for axis in (axes.xaxis, axes.yaxis)],
        "legend": [text.get_text() for text in legend.get_texts()] if legend else [],
        "lines": [listed(line.get_xydata()) for line in axes.lines],
        "collections": [collection_of(collection) for collection in axes.collections],
        "images": [listed(image.get_array()) for image in axes.images],
        "texts": texts,
    }


def ticks_of(axis):
    """An axis's ticks where the figure says which; Matplotlib's own are its own business."""
    located = axis.get_major_locator()
    if not isinstance(located, FixedLocator):
        return []
    return [[float(tick) for tick in located.locs], [t.get_text() for t in axis.get_ticklabels()]]


def collection_of(collection):
    """Boxes or points: where, of which values and colours."""
    array = collection.get_array()
    return {
        "paths": [listed(path.vertices) for path in collection.get_paths()],
        "offsets": listed(collection.get_offsets()),
        "values": [] if array is None else listed(array),
        "colours": listed(collection.get_facecolor()) if array is None else [],
    }


def listed(array):
    """An array as lists; whole numbers stay whole."""
    return np.ma.getdata(array).tolist()


def text_of(page):
    """The words of a report, its samples' notes, and hashes of the MIDI files that it offers."""
    data = json.loads(DATA.search(page)[1])
    files = [base64.b64decode(content) for content in MIDI.findall(page)]
    words = re.sub(r"<[^>]+>", "\n", UNSEEN.sub("", page))
    lines = [" ".join(line.split()) for line in html.unescape(words).splitlines()]
    return {
        "text": [line for line in lines if line],
        "samples": data["samples"],
        "midi": [hashlib.sha256(file).hexdigest() for file in files],
    }
