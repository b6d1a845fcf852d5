"""What the documentation says that can be checked: quotations, names, links, command lines."""

import ast
import importlib.util
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lstm_music.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lstm_music"
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    + [*(ROOT / "docs").rglob("*.md"), *(PACKAGE / "data").rglob("*.md")]
)
SOURCES = sorted(
    path
    for folder in ("src", "kernels", "tests", "tools", "benchmarks", "examples")
    for suffix in ("py", "cu", "cuh", "js", "h")
    for path in (ROOT / folder).rglob(f"*.{suffix}")
)
CODE = r"[\w./-]+\.(?:py|cuh?|js|h)"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
QUOTE = re.compile(rf"^`({CODE})`, `([\w.]+)`:\n\n```(\w+)\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


class Quote(NamedTuple):
    """Lines that a page quotes from a definition in a file."""

    file: str
    name: str
    lines: list[str]


def name_of(page):
    """A page's path as tests show it."""
    return page.relative_to(ROOT).as_posix()


# Text -------------------------------------------------------------------------------------------


def fences(text, *languages):
    """The fenced blocks of a page, of these languages."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def quotes(text):
    """The quotations of a page: a line that names file and definition, then a block."""
    return [
        Quote(file, name, [line.strip() for line in body.splitlines() if line.strip()])
        for file, name, _, body in QUOTE.findall(text)
    ]


def spans(text):
    """What stands in a page as code inside a sentence, line breaks in it as spaces."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text))]


def links(text):
    """Where a page's links and images lead, but for those that leave the project."""
    found = LINK.findall(SPAN.sub("", FENCE.sub("", text)))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(text):
    """The names that GitHub gives to a page's headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.M)
    plain = (re.sub(r"[^\w\- ]", "", head.replace("`", "").lower()) for head in heads)
    return {head.replace(" ", "-") for head in plain}


# Sources ----------------------------------------------------------------------------------------


def sources_named(name):
    """The files that a name with or without its folders means."""
    places = [ROOT / name, PACKAGE / name, ROOT / "kernels" / name]
    found = [path for path in places if path.is_file()]
    return found or [path for path in SOURCES if path.as_posix().endswith(f"/{name}")]


def definition(path, name):
    """The lines of a function, class or method, stripped; None where the file has none."""
    text = path.read_text("utf-8")
    segment = python_definition(text, name) if path.suffix == ".py" else c_definition(text, name)
    return None if segment is None else [line.strip() for line in segment.splitlines()]


def python_definition(text, name):
    node = ast.parse(text)
    for part in name.split("."):
        node = next((n for n in getattr(node, "body", ()) if part in names_bound(n)), None)
    return None if node is None else ast.get_source_segment(text, node)


def names_bound(node):
    """The names that a statement of a module or class defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {n.id for target in targets if target for n in ast.walk(target) if hasattr(n, "id")}


def c_definition(text, name):
    """From a name and its arguments, or a struct's name, to the brace that closes it."""
    start = re.search(rf"\b{name}\b(\([^;{{}}]*\))?\s*\{{", text)
    if start is None:
        return None
    depth = 0
    for at in range(start.end() - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start.start() : at + 1]
    return None


def occurs(lines, source):
    """The first of the lines that does not follow the others in the source; None where all do."""
    rest = iter(source)
    return next((line for line in lines if line not in rest), None)


@cache
def modules():
    """What each module of the package defines, and each class: name -> names of its members."""
    known, bases = {}, {}
    for path in SOURCES:
        if path.suffix != ".py" or not path.is_relative_to(PACKAGE):
            continue
        body = ast.parse(path.read_text("utf-8")).body
        if path.stem == "__init__":
            known.setdefault(path.parents[1].name, set()).add(path.parent.name)
        bound = {name for node in body for name in names_bound(node)}
        known.setdefault(path.stem, set()).update(bound)
        known.setdefault(path.parent.name, set()).add(path.stem)
        for node in body:
            if isinstance(node, ast.ClassDef):
                members = {name for inner in node.body for name in names_bound(inner)}
                stored = {
                    n.attr for n in ast.walk(node)
                    if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
                }  # fmt: skip
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
                known.setdefault(node.name, set()).update(members | stored)
    for name in bases:
        known[name] = set().union(*(known.get(each, set()) for each in lineage(name, bases)))
    known["ops"] = known["ops"] | known["NumpyOps"] if "ops" in known else known["NumpyOps"]
    return known


def lineage(name, bases):
    """A class and all that it derives from, by name."""
    return {name}.union(*(lineage(base, bases) for base in bases.get(name, ())))


# Commands ---------------------------------------------------------------------------------------

OPEN = re.compile(r"[\[\]|…]|\.\.\.")  # a pattern of usage, not a command line
COMMAND = re.compile(r"bin/[a-z]|lstm-music [a-z]|python (tools|benchmarks|examples)/")


def command_lines(text):
    """The command lines of a page: in blocks without a language, and inside sentences."""
    lines = [line for body in fences(text, "", "sh") for line in body.splitlines()]
    lines += [line for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    lines = [line.strip() for line in lines] + spans(text)
    return [line for line in lines if COMMAND.match(line) and not OPEN.search(line)]


def complaint(line):
    """What is wrong with a command line, None where its parser takes it."""
    line = line.partition(">>")[0]
    words = shlex.split(line, comments=True)
    if words[0] == "python":
        return script_complaint(words[1:])
    name = words[1] if words[0] == "lstm-music" else words[0].removeprefix("bin/")
    if not (ROOT / "bin" / name).is_file():
        return f"there is no bin/{name}"
    rest = words[2 if words[0] == "lstm-music" else 1 :]
    if name not in COMMANDS or line == f"bin/{name}":  # bin/test takes pytest's; a mere mention
        return None
    return parser_complaint(name, rest)


def parser_complaint(name, words):
    from lstm_music.errors import UserError

    judged = [flag for flag in ("--music", "--chorales") if name == "evaluate" and flag in words]
    module = judged[0].removeprefix("--") if judged else name
    parser = importlib.import_module(f"lstm_music.cli.{module}").make_parser()
    words = [word for word in words if word not in judged]
    last = parser._option_string_actions.get(words[-1]) if words else None
    about_option = last is not None and last.nargs != 0  # a sentence that leaves its value out
    if about_option:
        words.pop()
    try:
        parser.parse_args([word for word in words if word != "--help"])
    except UserError as error:
        return None if about_option and "arguments are required" in str(error) else str(error)
    return None


def script_complaint(words):
    """A script's parser is made in its main: here its text must hold the options."""
    script = ROOT / words[0]
    if not script.is_file():
        return f"there is no {words[0]}"
    text = script.read_text("utf-8")
    flags = [word for word in words[1:] if word.startswith("--")]
    unknown = [flag for flag in flags if f'"{flag}"' not in text]
    return f"it has no {unknown}" if unknown else None


def tool(name, folder="tools"):
    """A script of tools/ or benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(ROOT / folder))  # where it finds its neighbours, as when it is run
    spec.loader.exec_module(module)
    return module
