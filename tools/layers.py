"""Draw which package imports which into docs/design.md: python tools/layers.py

Of the imports only those that no chain of others implies. That they go down is for
`lint-imports` to see, by the layers in pyproject.toml.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lstm_music"
PAGE = ROOT / "docs" / "design.md"
SHARED = ("arrays", "errors", "files", "untrusted")  # modules that all of them use: not drawn
BLOCK = re.compile(r"^```mermaid\n.*?^```$", re.M | re.S)


def main() -> None:
    """Write the picture into the page."""
    PAGE.write_text(drawn_into(PAGE.read_text("utf-8")), "utf-8")


def drawn_into(page: str) -> str:
    """Return a page with the picture in place of the one that is there."""
    return BLOCK.sub(lambda _: picture(), page)


def picture() -> str:
    """Return the packages and the imports between them as a drawing of Mermaid."""
    graph = imports()
    lines = [f"    {a} --> {b}" for a in sorted(graph) for b in sorted(direct(graph, a))]
    return "\n".join(["```mermaid", "graph TD", *lines, "```"])


def imports() -> dict[str, set[str]]:
    """Return for each package the others that its modules import, anywhere in them."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        own = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lstm_music."):
                other = (node.module or "").split(".")[1]
                if other != own and other not in SHARED:
                    found.setdefault(own, set()).add(other)
    return found


def direct(graph: dict[str, set[str]], package: str) -> set[str]:
    """Return what a package imports, but for what the others of these lead to."""
    behind = set().union(*(reached(graph, other) for other in graph.get(package, ())))
    return graph.get(package, set()) - behind


def reached(graph: dict[str, set[str]], package: str) -> set[str]:
    """Return all that a package imports, and what that imports, and so on."""
    others = graph.get(package, set())
    return others.union(*(reached(graph, other) for other in others))


if __name__ == "__main__":
    main()
