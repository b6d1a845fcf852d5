"""Write docs/api.md from the docstrings: python tools/api_page.py

The modules in which music becomes gradients and gradients music, in reading order, with every
public function, class and method; of the other modules the first sentence. The source is parsed,
not imported, so that the page is the same wherever it is made.
"""

import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lstm_music"
PAGE = ROOT / "docs" / "api.md"
PARTS = {
    "Music": "sources midi piano_roll tokenizers.messages tokenizers.chords "
    "tokenizers.vocabulary corpus prepared batches",
    "The network": "ops ops.numpy_ops ops.philox embedding lstm heads model optim",
    "Learning": "step trainer progress checkpoint",
    "Composing": "sampling_rules sampling_automaton sampler frame_sampler composer",
    "Sound and sight": "audio score figures embeddings",
    "Judging": "evaluate frame_evaluation baselines music_metrics music_sets memorisation "
    "structure",
    "Errors": "errors",
}
INTRODUCTION = """\
# The package, from its docstrings

Made by `python tools/api_page.py`; a test makes it again and compares. How the parts fit together:
[design.md](design.md); the equations: [maths.md](maths.md). Shapes: T time steps, B batch,
E embedding, H hidden, V vocabulary, D notes; arrays are time-major.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {PAGE.stat().st_size / 1e3:.0f} kB")


def page() -> str:
    """Return the page's text."""
    listed = [name for names in PARTS.values() for name in names.split()]
    lines = [INTRODUCTION]
    for part, names in PARTS.items():
        links = (f"[{name}](#{anchor(name)})" for name in names.split())
        lines.append(f"- {part}: {', '.join(links)}")
    lines.append("- [The other modules](#the-other-modules)")
    for name in listed:
        lines += module_lines(name)
    lines += ["", "## The other modules", "", "| | |", "| --- | --- |"]
    for path in sorted(PACKAGE.rglob("*.py")):
        name = dotted(path)
        if name not in listed:
            first = docstring(ast.parse(path.read_text("utf-8"))).partition("\n\n")[0]
            lines.append(f"| `{name}` | {' '.join(first.split()).replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def dotted(path: Path) -> str:
    """Return a module's name inside the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "lstm_music"


def anchor(name: str) -> str:
    """Return GitHub's anchor of a module's heading."""
    return name.replace(".", "")


def source_of(name: str) -> Path:
    """Return the file of a module."""
    path = PACKAGE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def module_lines(name: str) -> Iterator[str]:
    """Yield the lines of a module: what it says of itself, then its public names."""
    path = source_of(name)
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    yield from ("", f"## {name}", "", docstring(tree))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and is_public(node.name):
            yield from definition_lines(text, node, "###", node.name)
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            yield from class_lines(text, node)


def is_public(name: str) -> bool:
    """Return whether a name is meant for others."""
    return not name.startswith("_")


def class_lines(text: str, node: ast.ClassDef) -> Iterator[str]:
    """Yield the lines of a class: its fields or its constructor, and its public methods."""
    bases = ", ".join(segment(text, base) for base in node.bases)
    head = f"class {node.name}({bases})" if bases else f"class {node.name}"
    yield from ("", f"### {node.name}", "", "```python", *marks(text, node), head)
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign) and is_public(segment(text, inner.target)):
            yield f"    {segment(text, inner)}"
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            yield textwrap.indent(signature(text, inner), "    ")
    yield from ("```", "", docstring(node))
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and is_public(inner.name):
            yield from definition_lines(text, inner, "####", f"{node.name}.{inner.name}")


def definition_lines(text: str, node: ast.FunctionDef, level: str, title: str) -> Iterator[str]:
    """Yield the lines of a function or method."""
    yield from ("", f"{level} {title}", "", "```python", signature(text, node), "```", "")
    yield docstring(node)


def signature(text: str, node: ast.FunctionDef) -> str:
    """Return a definition as it is written, without its body, in lines of at most 100."""
    whole = segment(text, node).split('"""')[0].rstrip()  # up to the docstring
    body = segment(text, node.body[0])
    whole = whole if '"""' in segment(text, node) else whole.removesuffix(body).rstrip()
    return "\n".join([*marks(text, node), whole.removesuffix(":")])


def marks(text: str, node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """Return the lines of a definition's decorators."""
    return [f"@{segment(text, mark)}" for mark in node.decorator_list]


def segment(text: str, node: ast.expr | ast.stmt) -> str:
    """Return the source of a node, its later lines as far left as its first.

    As ast.get_source_segment, which splits the text into lines at each call.
    """
    lines = list(lines_of(text)[node.lineno - 1 : node.end_lineno])
    lines[-1] = lines[-1][: node.end_col_offset]  # columns are bytes
    first, *rest = [lines[0][node.col_offset :], *lines[1:]]
    return first.decode() + textwrap.dedent("".join("\n" + line.decode() for line in rest))


@cache
def lines_of(text: str) -> tuple[bytes, ...]:
    """Return the lines of a text in UTF-8."""
    return tuple(line.encode() for line in text.splitlines())


def docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """Return what a node says of itself, "" where it says nothing."""
    return ast.get_docstring(node) or ""


if __name__ == "__main__":
    main()
