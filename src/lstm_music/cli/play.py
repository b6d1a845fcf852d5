"""bin/play: play along; each phrase that comes from a MIDI port is answered on another."""

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    number,
    run,
    warn,
    whole,
    write,
)
from lstm_music.cli.printing import shown
from lstm_music.cli.programs import Asked, check_programs, programs_of
from lstm_music.cli.sample import find_checkpoint, fit, options_of
from lstm_music.cli.sample_options import add_drawing_options, add_program_option, meter
from lstm_music.errors import UserError, pip_install
from lstm_music.files import free_number, numbered
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import WHOLE_NOTE, MidiError, Piece
from lstm_music.midi.timing import FASTEST, SLOWEST, bars_of, end_of, seconds_of, tempo_at
from lstm_music.runs.opened import model_of
from lstm_music.sampling.answering import (
    Answer,
    Conversation,
    Event,
    accompanied,
    answer,
    heard,
    mean_velocity,
    sent,
    session,
    written,
)
from lstm_music.sampling.composer import Composer, UnknownNotes, bars_in_words, from_silence
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options
from lstm_music.sampling.token_composers import EventComposer
from lstm_music.sampling.voicing import in_voices, singers_of
from lstm_music.tokenizers.parts import Player

OURS = "lstm-music"  # the name of virtual ports
THROUGH = "Midi Through"  # ALSA's, to which nothing is connected
SEQUENCER = Path("/dev/snd/seq")  # without which Linux has no ports
POLL = 0.002  # seconds between looks at the port
EXAMPLES = """examples:
  bin/play                                 with the one keyboard that is connected
  bin/play --port Roland                   with the one whose name has this in it
  bin/play runs/my-run --input Key --output Synth --tempo 100
                                           hear one instrument, answer on another
  bin/play --virtual --program 19          ports for other programs to connect to; an organ
  bin/play --bars 2 --pause 1 --save take  two bars for each phrase; MIDI files in take/

Play a phrase and wait: after --pause seconds of silence it is answered. Its first note begins a
bar, its tempo is about --tempo; chords are told apart into the voices of the model, if it has any.
Who plays while it answers interrupts it. Ctrl-C ends and saves.
"""


class Clock(NamedTuple):
    """What tells the seconds, and what waits so many."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def main(argv: Sequence[str], clock: Clock | None = None) -> int:
    """Answer until Ctrl-C, then save; return the exit status."""
    args = make_parser().parse_args(argv)
    clock = clock or Clock()
    with open_port("input", args) as into, open_port("output", args) as out:
        limit_threads(args.threads, args.backend)
        partner = partner_of(args)
        for _ in into.iter_pending():  # what came before it listened has lost its time
            pass
        talk = Conversation(args.pause, partner.reply)
        if not args.quiet:
            ports = f"play on '{into.name}', answers go to '{out.name}'"
            print(shown(f"{ports}: a phrase ends with {args.pause:g} s of silence, Ctrl-C all"))
            sys.stdout.flush()
        try:
            converse(talk, into, out, clock)
        finally:
            try:
                for message in talk.end(clock.now()):
                    out.send(message)
            finally:
                partner.keep_session(talk)
    return 0


def converse(talk: Conversation, into: Any, out: Any, clock: Clock) -> None:
    """Hear and answer for ever. into, out: mido's ports."""
    while True:
        for message in into.iter_pending():
            for ended in talk.hear(clock.now(), message):
                out.send(ended)
        for due in talk.due(clock.now()):
            out.send(due)
        clock.sleep(POLL)


# Ports ------------------------------------------------------------------------------------------


def open_port(kind: str, args: argparse.Namespace) -> Any:
    """Return the port of mido's that the options name; kind: input or output.

    Raises UserError where there is none or it isn't told which.
    """
    asked = getattr(args, kind) or args.port
    opened = mido.open_input if kind == "input" else mido.open_output
    check_system()
    try:
        if args.virtual and asked is None:
            return opened(OURS, virtual=True)
        names = mido.get_input_names() if kind == "input" else mido.get_output_names()
        return opened(chosen(names, asked, kind))
    except ImportError as error:
        raise UserError(f"MIDI ports need python-rtmidi: {pip_install('python-rtmidi')}") from error
    except (OSError, RuntimeError, ValueError) as error:
        what = "virtual ports" if args.virtual else f"the MIDI {kind}"
        raise UserError(
            f"can't open {what} here ({error}): name other ones with --input and --output"
        ) from error


def check_system() -> None:
    """Raise UserError where Linux has no sequencer, without which its library says much more."""
    usual = mido.backend.name == "mido.backends.rtmidi" and not mido.backend.api
    if usual and sys.platform == "linux" and not SEQUENCER.exists():
        raise UserError(
            f"this system has no MIDI ports (no {SEQUENCER}): connect an instrument to one that "
            "has, or load its sequencer with 'sudo modprobe snd-seq'"
        )


def chosen(names: Sequence[str], asked: str | None, kind: str) -> str:
    """Return the port of a name, or part of one; of none the only one that is an instrument's."""
    real = [name for name in dict.fromkeys(names) if asked or not name.startswith(THROUGH)]
    found = [name for name in real if (asked or "").casefold() in name.casefold()]
    if asked in found or len(found) == 1:
        return asked if asked in found else found[0]
    listed = ", ".join(f"'{name}'" for name in found or dict.fromkeys(names))
    if not names:
        raise UserError(f"no MIDI {kind} here: connect an instrument, or add --virtual")
    if asked is None and not real:
        raise UserError(f"no instrument is connected: connect one, or name --{kind} of {listed}")
    if asked is None:
        raise UserError(f"several MIDI {kind}s here: name --{kind} (or --port) of {listed}")
    many = "several MIDI" if found else "no MIDI"
    raise UserError(f"{many} {kind}s have '{asked}' in their name: name one of {listed}")


# Answers ----------------------------------------------------------------------------------------


class Partner:
    """Answers phrases, tells of it and keeps all. make: what answers the piece of a phrase."""

    def __init__(
        self,
        composer: Composer[Any],
        make: Callable[[Piece, Options], Answer],
        options: Options,
        folder: Path,
        args: argparse.Namespace,
    ) -> None:
        self.composer, self.make, self.options, self.args = composer, make, options, args
        self.tempo = args.tempo or composer.tempo
        self.folder = args.save or folder
        self.voices = singers_of(composer)
        self.phrases = 0

    def reply(self, phrase: Sequence[Event]) -> list[Event]:
        """Return what is to be sent after a phrase, nothing where the model knows no note of it."""
        begun = time.perf_counter()
        self.phrases += 1
        name = f"phrase {self.phrases}"
        try:
            played = heard(phrase, name, self.tempo, self.composer)
            piece = self.read(played)
            made = self.make(piece, self.options_for(piece))
        except MidiError as error:
            warn(f"{name} {error}: no answer")
            return []
        except UnknownNotes:
            warn(f"the model knows none of the notes of {name}: no answer")
            return []
        loud = mean_velocity(played)
        programs = programs_of(made.alone, self.args.program)
        events = sent(made.alone, loud, programs)
        if not self.args.quiet:
            took = time.perf_counter() - begun
            speed = "" if self.composer.played else f" at {tempo_at(piece.tempo, 0):.0f}"
            told = f"{self.size(piece)}{speed}; answer: {self.size(made.alone)}, after {took:.2f} s"
            print(shown(f"{name}: {told}"), flush=True)
        if self.args.save:
            self.keep(contents(made.whole, self.args.program, loud), "phrase")
        return events

    def read(self, played: Piece) -> Piece:
        """Return a phrase as the model is to read it: written, in voices if it writes in such."""
        if self.composer.played:
            return played
        piece = written(played, self.composer, self.args.meter and self.args.meter.bar)
        return in_voices(piece, self.voices) if self.voices and not any(piece.drums) else piece

    def options_for(self, piece: Piece) -> Options:
        """Return how the next answer is drawn: seconds are those of the player's own tempo."""
        limit = self.options.limit
        limit = limit and round(limit * tempo_at(piece.tempo, 0) / self.tempo)
        return replace(self.options, first=self.phrases - 1, limit=limit)

    def size(self, piece: Piece) -> str:
        """Return how much a piece is, in words."""
        notes, end = sum(len(track) // 2 for track in piece.tracks), end_of(piece)
        if self.composer.played:
            length = f"{seconds_of(piece):.1f} s"
        else:
            length = bars_in_words(len(bars_of(piece.meter, max(end - 1, 0))[0]))
        parts = f" in {len(piece.tracks)} parts" if len(piece.tracks) > 1 else ""
        return f"{notes} note{'s' * (notes != 1)}{parts}, {length}"

    def keep_session(self, talk: Conversation) -> None:
        """Write all that was played and answered."""
        if talk.said and not self.args.no_save:
            content = io.BytesIO()
            session(talk.said, self.tempo).save(file=content)
            path = self.keep(content.getvalue(), "session")
            print(path if self.args.quiet else f"{path}  (all that was played and answered)")

    def keep(self, content: bytes, stem: str) -> Path:
        """Write a file of the next free number; return its path."""
        path = numbered(self.folder, stem, ".mid", free_number(self.folder, stem))
        return write(content, path, new=True)


def partner_of(args: argparse.Namespace) -> Partner:
    """Return what answers as the options say. Raises UserError for what the model can't do."""
    checkpoint, folder = find_checkpoint(args.run)
    composer = composer_of(checkpoint, model_of(checkpoint, args.backend), args.free)
    fit(args, composer)
    if args.tempo and composer.played:
        raise UserError("--tempo is of beats, and a performance has none: leave it out")
    check_programs([band(composer)], args.program)
    options = options_of(args, composer, args.tempo or composer.tempo)
    make = maker_of(args, composer)
    # The first music takes the longest, for code is loaded: nobody is to wait for it.
    from_silence(composer, 1, replace(options, limit=WHOLE_NOTE, bars=None, beyond=False))
    return Partner(composer, make, options, folder, args)


def maker_of(
    args: argparse.Namespace, composer: Composer[Any]
) -> Callable[[Piece, Options], Answer]:
    """Return what answers the piece of a phrase. Raises UserError for what the model can't do."""
    if not args.accompany:
        return partial(answer, composer, warn=warn)
    if not isinstance(composer, EventComposer) or composer.played or not composer.roster:
        raise UserError(
            "--accompany needs a model of written music in parts: name one that was trained with "
            "--parts, or bach"
        )
    return partial(accompanied, composer, warn=warn)


def band(composer: Composer[Any]) -> Piece:
    """Return a piece in which each part of a composer's plays, though no note."""
    roster = composer.roster or (Player(),)
    silent = [np.zeros((0, 3), np.int32)] * len(roster)
    parts = tuple(player.part for player in roster)
    return Piece("", silent, parts=parts, drums=tuple(player.drums for player in roster))


def contents(piece: Piece, asked: Asked | None, loud: int) -> bytes:
    """Return a piece as a MIDI file; loud: its velocities, where it has none of its own."""
    content = io.BytesIO()
    write_midi(piece, content, None, programs_of(piece, asked), None if piece.velocities else loud)
    return content.getvalue()


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("play", "Play along: each phrase from a MIDI port is answered.", EXAMPLES)
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN|CHECKPOINT",
        help="as of bin/sample (default: the newest run, else the bundled model)")  # fmt: skip
    add("--port", metavar="NAME",
        help="the instrument to hear and to answer on, by its name or part of it (default: the "
        "only one there is)")  # fmt: skip
    add("--input", metavar="NAME", help="the one to hear (default: --port's)")
    add("--output", metavar="NAME", help="the one to answer on (default: --port's)")
    add("--virtual", action="store_true",
        help=f"where none is named, open ports '{OURS}' for other programs to connect to; Windows "
        "has none such")  # fmt: skip
    add("--accompany", action="store_true",
        help="play each phrase once more with the voices that it lacks, by a model in parts",
    )  # fmt: skip
    add("--pause", type=number(0.1, 60), default=1.5, metavar="S",
        help="seconds of silence that end a phrase")  # fmt: skip
    length = parser.add_mutually_exclusive_group().add_argument
    length("--bars", type=whole(1, 1000), metavar="N",
           help="bars of each answer (default: as many as the phrase has)")  # fmt: skip
    length("--seconds", type=number(0, 3600, above=True), metavar="S",
           help="seconds of each answer (default: of a model of performances, as many as the "
           "phrase has)")  # fmt: skip
    add("--tempo", type=number(SLOWEST, FASTEST), metavar="BPM",
        help="quarter notes a minute of what you play, about: each phrase's own is found up to 15 "
        "%% faster or slower, and answered in (default: the median of the corpus that the model "
        "learnt, else 90)")  # fmt: skip
    add("--meter", type=meter, metavar="N/D", help="of what you play, and of the answer: 3/4, 6/8, "
        "… (default: 4/4)")  # fmt: skip
    add_drawing_options(parser)
    add_program_option(parser)
    save = parser.add_mutually_exclusive_group().add_argument
    save("--save", type=Path, metavar="DIR",
         help="write each phrase with its answer as a MIDI file, and at the end all (default: all "
         "at the end, into the run's samples/)")  # fmt: skip
    save("--no-save", action="store_true", help="write nothing")
    add("--quiet", action="store_true", help="print nothing but the path")
    add_backend_options(parser)
    parser.set_defaults(length=None)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
