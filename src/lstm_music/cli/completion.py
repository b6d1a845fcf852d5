"""bin/completion: a script for bash and zsh that completes the other commands."""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence

from lstm_music.cli.commands import COMMANDS
from lstm_music.cli.common import Parser, run
from lstm_music.corpus.sources import NAMED
from lstm_music.reproduction.experiments import NAMES
from lstm_music.runs.opened import RUNS

OWN = "completion"
EXAMPLES = """examples:
  eval "$(bin/completion)"            for this shell: bin/sample --t<Tab>
  bin/completion >> ~/.bashrc         for each new bash
  bin/completion >> ~/.zshrc          for each new zsh
"""
MUSIC = "*.mid | *.midi | *.musicxml | *.mxl | *.xml"
SCRIPT = """\
# Completion of lstm-music's commands, in bash and zsh, made by bin/completion.
if [ -n "${{ZSH_VERSION-}}" ]; then
    autoload -Uz compinit bashcompinit && compinit && bashcompinit
fi
_lstm_music() {{
    local name=${{1##*/}} word=$2 words=
    if [ "$name" = lstm-music ]; then
        name=${{COMP_WORDS[1]}}
        [ "$COMP_CWORD" -gt 1 ] || name=lstm-music
    fi
    local runs=$(ls {runs} 2>/dev/null)
    case "$name $3" in
{values}
    *)
        case "$name $word" in
{words}
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _lstm_music {programs}
"""
# Where a case sets no words, `-o default` completes the names of files.


def main(argv: Sequence[str]) -> int:
    """Print the script; return the exit status."""
    make_parser().parse_args(argv)
    print(script(), end="")
    return 0


def script() -> str:
    """Return the script for all commands."""
    parsers = {
        name: importlib.import_module(f"lstm_music.cli.{name}").make_parser()
        for name in COMMANDS
        if name != OWN
    }
    values = [case for name, parser in parsers.items() for case in value_cases(name, parser)]
    words = [case for name, parser in parsers.items() for case in word_cases(name, parser)]
    words.append(f'        "lstm-music "*) words="{" ".join(COMMANDS)}" ;;')
    programs = " ".join(f"bin/{name} ./bin/{name}" for name in parsers)
    return SCRIPT.format(
        runs=RUNS,
        values="\n".join(values),
        words="\n".join(words),
        programs=f"{programs} lstm-music",
    )


def value_cases(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a case for each option that takes a value: words for it, or none for a file's name."""
    for action in parser._actions:
        if action.option_strings and action.nargs != 0:
            patterns = " | ".join(f'"{name} {flag}"' for flag in action.option_strings)
            yield f'    {patterns}) words="{" ".join(words_of(action))}" ;;'


def word_cases(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the cases of what stands by itself: options, and what the command works on."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    places = [action for action in parser._actions if not action.option_strings]
    found = [word for action in places for word in words_of(action)]
    yield f'        "{name} "-*) words="{" ".join(flags)}" ;;'
    take = f'words="{" ".join(found)}"'
    if places and places[0].dest == "melody":  # a file is first
        take = f'case "$3" in {MUSIC}) {take} ;; esac'
    yield f'        "{name} "*) {take} ;;'


def words_of(action: argparse.Action) -> list[str]:
    """Return what can stand for an argument: choices, or what its name says, such as runs."""
    if action.choices:
        return [str(choice) for choice in action.choices]
    if action.dest == "corpus":
        return list(NAMED)
    if action.dest == "experiments":
        return list(NAMES)
    return ["$runs"] if action.dest in ("run", "runs") else []


def make_parser() -> Parser:
    """Return the command's options."""
    return Parser("completion", "Print a script that completes commands in bash or zsh.", EXAMPLES)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
