"""The results of benchmarks/gpu.py: which goals are reached, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import gpu_cases as cases
from gpu_cases import precision_of

Row: TypeAlias = dict[str, Any]
TABLES = ("training", "recurrent", "loss", "step", "sampling", "kernels", "other training")
NOTHING = "not run"


class Goal(NamedTuple):
    """One line of the table of goals; reached: yes, no, or nothing where it wasn't measured."""

    goal: str
    precision: str
    to_reach: str
    measured: str
    reached: str


# Finding rows -----------------------------------------------------------------------------------


def chosen(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def fastest(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """Return the row of these values that took least time, None where none was timed."""
    timed = [row for row in chosen(rows, **wanted) if "seconds" in row]
    return min(timed, key=lambda row: float(row["seconds"]), default=None)


def why_not(rows: Iterable[Row], **wanted: Any) -> str:
    """Return the error of the first row of these values that has one."""
    errors = [str(row["error"]) for row in chosen(rows, **wanted) if "error" in row]
    return errors[0] if errors else NOTHING


def line(
    goal: str, precision: str, to_reach: str, value: float | None, text: str, good: bool
) -> Goal:
    """Return a line of the table; without a value the text says why there is none."""
    reached = "" if value is None else "yes" if good else "no"
    return Goal(goal, precision, to_reach, text, reached)


# Goals ------------------------------------------------------------------------------------------


def goals(found: Row) -> list[Goal]:
    """Return all goals in order, whatever was measured; "hidden": of small sizes."""
    sizes, variants = cases.sizes_of(found.get("hidden", 0)), cases.VARIANTS
    training, loss = found.get("training", []), found.get("loss", [])
    recurrent, step = found.get("recurrent", []), found.get("step", [])
    each = [(case, variant) for case in sizes.goals for variant in variants]
    losses = [(V, variant) for _, V in sizes.losses for variant in variants]
    narrow, least, most = sizes.narrow, cases.TIMES_CUDNN, cases.LEAST_OF_CUDNN

    def cudnn(H: int, variant: str, times: float) -> Goal:
        goal = f"recurrent part, H={H}"
        return faster(goal, "cuDNN", recurrent, variant, times, H=H, part="layers")

    def pytorch(case: cases.Case, variant: str) -> Goal:
        goal = f"{case.name}, a step"
        return faster(goal, "PyTorch", training, variant, cases.TIMES_PYTORCH, case=case.name)

    def drawn(batch: int) -> Goal:
        goal, rows = f"sampling, batch {batch}", found.get("sampling", [])
        return faster(goal, "PyTorch's loop", rows, "fp32", cases.TIMES_SAMPLING, batch=batch)

    return [
        *(epochs(case, training) for case in sizes.goals),
        *(pytorch(case, v) for case, v in each),
        *(cudnn(narrow, v, least) for v in variants),
        *(step_and_layer(recurrent, v, narrow, sizes.length) for v in variants),
        *(loss_share(V, loss, v) for V, v in losses),
        *(loss_memory(V, loss, v) for V, v in losses),
        *(everything_else(case.name, step, v) for case, v in each),
        *(drawn(batch) for batch in sizes.batches),
        *(cudnn(H, v, most) for H in sizes.wide for v in variants),
    ]


def epochs(case: cases.Case, rows: list[Row]) -> Goal:
    """Return whether all epochs of a case fit their seconds, at our fastest precision."""
    goal, to_reach = f"{case.name}: {case.epochs} epochs", f"{case.seconds:.0f} s"
    wanted = {"side": "ours", "case": case.name, "who": "ours, batches sent"}
    best = fastest(rows, **wanted)
    if best is None:
        return line(goal, "", to_reach, None, why_not(rows, **wanted), False)
    took = case.all_epochs(best["seconds"])
    text = f"{took:.1f} s ({best['seconds'] * 1e3:.3f} ms a step)"
    return line(goal, best["precision"], to_reach, took, text, took <= case.seconds)


def ratio(rows: list[Row], variant: str, **wanted: Any) -> tuple[float | None, str]:
    """Return how many times faster than the best rival ours is, with the rival's name, or why."""
    ours = fastest(rows, side="ours", precision=variant, **wanted)
    theirs = {"side": "torch", "precision": precision_of(variant), **wanted}
    rival = fastest(rows, **theirs)
    if ours is None:
        return None, f"ours: {why_not(rows, side='ours', precision=variant, **wanted)}"
    if rival is None:
        return None, f"PyTorch: {why_not(rows, **theirs)}"
    times = rival["seconds"] / ours["seconds"]
    return times, f"{times:.2f}x {rival['who']}"


def faster(
    goal: str, rival: str, rows: list[Row], variant: str, least: float, **wanted: Any
) -> Goal:
    """Return whether ours is so many times as fast as the best rival in its precision."""
    times, text = ratio(rows, variant, **wanted)
    return line(goal, variant, f"{least:.2g}x {rival}", times, text, (times or 0) >= least)


def step_and_layer(rows: list[Row], variant: str, H: int, T: int) -> Goal:
    """Return whether our kernels take little enough for a time step of a layer, one way."""
    wanted = {"side": "ours", "part": "kernels", "H": H, "precision": variant}
    best, most = fastest(rows, **wanted), cases.STEP_AND_LAYER
    took = None if best is None else best["seconds"] / T / 2
    text = why_not(rows, **wanted) if took is None else f"{took * 1e6:.2f} µs"
    return line("a time step and layer, mean of both ways", variant, f"{most * 1e6:.1f} µs", took,
                text, took is not None and took <= most)  # fmt: skip


def loss_share(V: int, rows: list[Row], variant: str) -> Goal:
    """Return whether the loss layer reaches enough of the matrix rate."""
    wanted = {"side": "ours", "V": V, "precision": variant}
    best, least = fastest(rows, **wanted), cases.LOSS_SHARE
    share = None if best is None else best.get("share_of_matrix_rate")
    text = why_not(rows, **wanted) if best is None else "no matrix rate was measured"
    if best and share is not None:
        text = f"{share:.0%}, {best['seconds'] * 1e6:,.0f} µs"
        times, said = ratio(rows, variant, V=V)
        text += f", {said}" if times is not None else ""
    return line(f"loss layer, V={V:,}", variant, f"{least:.0%} of the matrix rate", share, text,
                (share or 0) >= least)  # fmt: skip


def loss_memory(V: int, rows: list[Row], variant: str) -> Goal:
    """Return whether the loss layer takes little enough memory beside weights and gradients."""
    wanted = {"side": "ours", "V": V, "precision": variant}
    known = [row["bytes_over"] for row in chosen(rows, **wanted) if "bytes_over" in row]
    most, over = cases.LOSS_BYTES, max(known, default=None)
    text = why_not(rows, **wanted) if over is None else f"{over / 1e6:,.0f} MB"
    return line(f"memory of the loss layer, V={V:,}", variant, f"{most / 1e6:.0f} MB", over, text,
                over is not None and over <= most)  # fmt: skip


def everything_else(name: str, rows: list[Row], variant: str) -> Goal:
    """Return whether what is neither layers nor loss is a small enough share of a step."""
    wanted = {"case": name, "precision": variant}
    timed = [row for row in chosen(rows, **wanted) if "rest_share" in row]
    most, share = cases.REST_SHARE, timed[0]["rest_share"] if timed else None
    text = why_not(rows, **wanted)
    if share is not None:
        text = f"{share:.1%} (timed by itself: {timed[0]['rest_timed_share']:.1%})"
    return line(f"{name}: everything else in a step", variant, f"{most:.0%}", share, text,
                share is not None and share <= most)  # fmt: skip


# Text -------------------------------------------------------------------------------------------


def cell(value: Any) -> str:
    """Return a value as a cell of a table."""
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "/").replace("\n", " ")


def table(rows: list[Row]) -> list[str]:
    """Return rows as Markdown, with a column for each key that any of them has."""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    cells = [[cell(row.get(k, "")) for k in keys] for row in rows]
    return aligned([keys, *cells], len(keys)).splitlines()


def aligned(lines: list[list[str]], left: int) -> str:
    """Return lines of cells as a table, the heads first; all but `left` columns are numbers."""
    heads, *cells = lines
    rule = ["---"] * left + ["--:"] * (len(heads) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *cells))


def goal_table(found: Row) -> str:
    """Return the table of goals."""
    return "\n".join(table([goal._asdict() for goal in goals(found)]))


def markdown(found: Row) -> str:
    """Return the results as Markdown, the goals first."""
    machine = found.get("machine", {})
    lines = [f"# {machine.get('gpu', 'unknown GPU')}, {machine.get('date', '')}", ""]
    lines += [f"- {name}: {cell(value)}" for name, value in machine.items()]
    lines += ["", goal_table(found), ""]
    lines += [f"- ceilings: `{json.dumps(found.get('ceilings', NOTHING))}`"]
    lines += [f"- {name}: `{json.dumps(value)}`" for name, value in found.get("checks", {}).items()]
    lines += [
        f"- agreement, {name}: {' '.join(f'{k} {v:.1e}' for k, v in errors.items())}"
        for name, errors in found.get("agreement", {}).items()
    ]
    lines += [f"- not run: {name}" for name in found.get("not run", [])]
    lines += [f"- {name}: error: {error}" for name, error in found.get("errors", {}).items()]
    lines += [f"- {name}: {took:.0f} s" for name, took in found.get("seconds", {}).items()]
    for name in TABLES:
        rows = found.get(name)
        lines += ["", f"## {name}", "", *(table(rows) if rows else [NOTHING])]
    return "\n".join(lines) + "\n"


def write(found: Row, path: Path) -> None:
    """Write PATH.json and PATH.md, the first whatever becomes of the second."""
    try:
        page = markdown(found)
    except Exception as error:  # of rows that nobody thought of
        page = f"no page: {error!r}\n"
    write_whole(path, json.dumps(found, indent=1, default=str) + "\n", page)


def write_whole(path: Path, facts: str, page: str) -> None:
    """Write PATH.json and PATH.md, each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".json", facts), (".md", page)):
        draft = path.with_name(f"{path.name}{suffix}.part")
        draft.write_text(text, "utf-8")
        draft.replace(path.with_name(path.name + suffix))


def part_lines(found: Row, before: dict[str, int], show: Callable[[str], None]) -> None:
    """Show the rows that a part added; before: how many each table had."""
    for name in TABLES:
        rows = found.get(name, [])[before[name] :]
        if rows:
            show("\n".join([f"## {name}", *table(rows)]))
