"""Change one thing in a file at a time, and see whether its tests notice.

    python tools/mutate.py --sample 25 --seed 0

Of each file so many mutants are drawn: a comparison or an operator turned into another, a number
moved by one, a truth negated, a statement left out, a returned value replaced by None. A mutant
that no test notices is printed. The related tests alone are run, until the first failure.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
RULES = (
    "tests/sampling/test_rules.py::test_walks_are_those_recorded",
    "tests/sampling/test_message_rules.py",
    "tests/sampling/test_event_rules.py",
)
TESTS = {
    "lstm.py": ("tests/network/test_lstm.py",),
    "network/heads.py": ("tests/network/test_heads.py",),
    "network/factored.py": ("tests/network/test_heads.py", "tests/network/test_embedding.py"),
    "network/notes.py": ("tests/network/test_heads.py", "tests/network/test_embedding.py"),
    "tokenizers/vocabulary.py": ("tests/tokenizers/test_vocabulary.py",),
    "tokenizers/messages.py": ("tests/tokenizers/test_messages.py",),
    "tokenizers/chords.py": ("tests/tokenizers/test_chords.py",),
    "sampling/rules.py": RULES,
    "sampling/automaton.py": RULES,
    "checkpoint.py": ("tests/runs/test_checkpoint.py", "tests/runs/test_forged_checkpoints.py"),
    "checkpoint_meta.py": ("tests/runs/test_forged_checkpoints.py",),
    "run_lock.py": ("tests/runs/test_run_lock.py",),
    "health.py": ("tests/training/test_health.py",),
    "compiled_sampling.py": ("tests/sampling/test_compiled_sampling.py",),
    "compiled_choice.py": ("tests/sampling/test_compiled_sampling.py",),
}
SECONDS = 600  # a run of the tests that takes longer may have noticed something
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift, ast.Pow: ast.Mult,
}  # fmt: skip


def main() -> int:
    """Draw mutants, run the tests on each, print those that live; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=25, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(TESTS), nargs="*")
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    killed = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for part in ("src", "tests", "tools"):
            shutil.copytree(REPO / part, Path(folder) / part, symlinks=True)
        shutil.copy(REPO / "pyproject.toml", folder)
        for name in args.only or TESTS:
            dead, late, alive = mutate(Path(folder), name, args.sample, args.seed, until)
            killed, total = killed + dead, total + dead + len(alive)
            slow = f", {late} by a timeout" if late else ""
            print(f"{name}: {dead} of {dead + len(alive)} killed{slow}", flush=True)
            for line in alive:
                print(f"  lives: {line}", flush=True)
    print(f"in all {killed} of {total} killed ({100 * killed / max(total, 1):.0f} %)")
    return 0


def mutate(
    repo: Path, name: str, sample: int, seed: int, until: float
) -> tuple[int, int, list[str]]:
    """Return how many mutants of a file the tests killed, how many by a timeout, and the others."""
    path = repo / "src" / "lstm_music" / name
    source = path.read_text("utf-8")
    if noticed(repo, TESTS[name]):
        raise SystemExit(f"the tests of {name} fail without any mutant")
    mutants = list(mutants_of(source))
    drawn = random.Random(f"{seed} {name}").sample(mutants, min(sample, len(mutants)))
    killed, late, alive = 0, 0, []
    for what, mutant in drawn:
        if time.monotonic() > until:
            break
        path.write_text(mutant, "utf-8")
        begun = time.monotonic()
        if noticed(repo, TESTS[name]):
            killed += 1
            late += time.monotonic() - begun >= SECONDS
        else:
            alive.append(what)
    path.write_text(source, "utf-8")
    return killed, late, alive


def noticed(repo: Path, tests: tuple[str, ...]) -> bool:
    """Return whether the tests fail, or don't end."""
    words = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {
        "PYTHONPATH": str(repo / "src"),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(repo / "hypothesis"),
    }
    try:
        done = subprocess.run(
            [sys.executable, *words],
            check=False,
            cwd=repo,
            env=environment,
            timeout=SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


# Mutants ----------------------------------------------------------------------------------------


def mutants_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield each mutant of a module: in words, and as source."""
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        for n, changed in enumerate(changes(node)):
            mutant = copy.deepcopy(tree)
            place = next(m for i, m in enumerate(ast.walk(mutant)) if i == index)
            fields = list(changes(place))[n]
            for field, value in fields.items():
                setattr(place, field, value)
            before, after = told(node, fields), told(place, fields)
            line = getattr(node, "lineno", 0)
            if before != after and changed:
                yield f"line {line}: {before} -> {after}", ast.unparse(mutant)


def told(node: ast.AST, fields: dict[str, object]) -> str:
    """Return a node as source, of a function only the statement that is left out."""
    if isinstance(node, ast.FunctionDef) and isinstance(fields["body"], list):
        left_out = [n for n, s in enumerate(fields["body"]) if isinstance(s, ast.Pass)]
        return f"{node.name}: " + "; ".join(short(ast.unparse(node.body[n])) for n in left_out)
    return short(ast.unparse(ast.fix_missing_locations(node)))


def short(text: str) -> str:
    """Return the first line of source that isn't too long."""
    return text.replace("\n", " ; ")[:90]


def changes(node: ast.AST) -> Iterator[dict[str, object]]:
    """Yield what could be otherwise in a node, as new values of its fields."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield {"ops": [COMPARISONS[type(node.ops[0])](), *node.ops[1:]]}
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield {"op": OPERATORS[type(node.op)]()}
    elif isinstance(node, ast.BoolOp):
        yield {"op": ast.Or() if isinstance(node.op, ast.And) else ast.And()}
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield {"value": not node.value}
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield {"value": node.value + 1}
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield {"test": ast.UnaryOp(ast.Not(), node.test)}
    elif isinstance(node, ast.Return) and node.value is not None:
        yield {"value": ast.Constant(None)}
    elif isinstance(node, ast.FunctionDef):
        for n, statement in enumerate(node.body):
            if isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign | ast.Raise) and not (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            ):
                yield {"body": [*node.body[:n], ast.Pass(), *node.body[n + 1 :]]}


if __name__ == "__main__":
    sys.exit(main())
