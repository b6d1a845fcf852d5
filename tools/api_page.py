"""Write the package's reference from its docstrings: python tools/api_page.py [--out FILE.md]

Every public function, class and method, package by package in the order in which music flows. The
source is parsed, not imported, so that the page is the same wherever it is made.
"""

import argparse
import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lstm_music"
PAGE = ROOT / "build" / "api.md"
PACKAGES = (
    "midi", "tokenizers", "ops", "network", "corpus", "runs", "training", "sampling", "evaluation",
    "rendering", "report", "listening", "reproduction", "cli",
)  # fmt: skip
INTRODUCTION = """\
# The package, from its docstrings

Shapes: T time steps, B batch, E embedding, H hidden, V vocabulary, D notes; arrays are time-major.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Write the package's reference.")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE.md", help=f"({PAGE})")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(), "utf-8")
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


def page() -> str:
    """Return the page's text."""
    lines = [INTRODUCTION]
    for package in PACKAGES:
        links = (f"[{name}](#{anchor(name)})" for name in modules_of(package))
        lines.append(f"- {package}: {', '.join(links)}")
    lines.append(f"- all use: {', '.join(f'[{name}](#{anchor(name)})' for name in modules_of())}")
    for name in [*modules_of(), *(name for each in PACKAGES for name in modules_of(each))]:
        lines += module_lines(name)
    return "\n".join(lines) + "\n"


def modules_of(package: str = "") -> list[str]:
    """Return the modules of a package, or those beside the packages."""
    found = (PACKAGE / package).rglob("*.py") if package else PACKAGE.glob("*.py")
    return sorted(map(dotted, found))


def dotted(path: Path) -> str:
    """Return a module's name inside the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "lstm_music"


def anchor(name: str) -> str:
    """Return GitHub's anchor of a module's heading."""
    return name.replace(".", "")


def source_of(name: str) -> Path:
    """Return the file of a module."""
    path = PACKAGE if name == "lstm_music" else PACKAGE.joinpath(*name.split("."))
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
