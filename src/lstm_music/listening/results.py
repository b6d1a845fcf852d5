"""The results of a listening test as a page, as JSON and as lines."""

import math
from collections.abc import Sequence
from typing import Any

from lstm_music.evaluation.music.judgement import without_nan
from lstm_music.listening import page_file
from lstm_music.listening import statistics as st
from lstm_music.listening.study import ANCHORS, HIGHEST, Study
from lstm_music.rendering.html import Html, joined, table, tag

WIDTH, HEIGHT = 560, 190  # of a histogram
PAPER = {"A": (7.0, 1.87), "B": (5.3, 1.7), "C": (6.2, 2.4)}  # its mean and sd, 26 raters
PAPER_RATERS = 26
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
RULES = (
    f"A rater counts who rated every clip; not all with one score (of {st.FEWEST_EQUAL} or more); "
    f"a repeated clip at most {st.CARELESS} points apart, on average; and the human control, where "
    f"there is one, above {st.NOISE}."
)


def as_json(study: Study, results: st.Results) -> dict[str, Any]:
    """Return everything as an object for JSON: no rater's key, and ratings without a name."""
    made = {
        "study": study.id,
        "title": study.title,
        "clips": [clip._asdict() for clip in study.clips],
        "raters": len(results.kept),
        "excluded": [{"rater": r.number, "reason": why} for r, why in results.excluded],
        "rules": RULES,
        "systems": [system._asdict() for system in results.systems],
        "friedman": results.friedman and results.friedman._asdict(),
        "pairs": [finite(pair._asdict()) for pair in results.pairs],
        "ratings": [rater._asdict() for rater in results.kept],
    }
    cleaned: dict[str, Any] = without_nan(made)
    return cleaned


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with null for what is infinite."""
    return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in row.items()}


def lines(results: st.Results) -> list[str]:
    """Return the results in lines for a terminal."""
    made = [f"{len(results.kept)} raters count, {len(results.excluded)} don't"]
    made += [f"  rater {rater.number}: {why}" for rater, why in results.excluded]
    if not results.kept:
        return made
    width = max(len(system.name) for system in results.systems)
    for s in results.systems:
        interval = f"95 % interval {shown(s.low)} to {shown(s.high)}"
        scores = f"{shown(s.mean)} ± {shown(s.sd)}"
        made.append(f"{s.name:{width}}  {scores}  {interval}" + " *" * s.control)
    if any(system.control for system in results.systems):
        made.append("* by people")
    made.append(friedman_line(results.friedman))
    made += [pair_line(pair) for pair in results.pairs]
    return made


def friedman_line(test: st.Friedman | None) -> str:
    """Return Friedman's test in words."""
    if test is None:
        return "Friedman's test needs three systems and two raters."
    found = "the systems differ" if test.p < st.ALPHA else "no difference is shown"
    return (
        f"Friedman's test: χ² = {test.statistic:.2f}, p = {p_of(test.p)}, "
        f"Kendall's W = {test.agreement:.2f}: {found}"
    )


def pair_line(pair: st.Pair) -> str:
    """Return a pair's test in words."""
    told = "differ" if pair.holm < st.ALPHA else "not told apart"
    return (
        f"{pair.first} - {pair.second}: {pair.difference:+.2f} ({pair.low:+.2f} to "
        f"{pair.high:+.2f}), p = {p_of(pair.p)}, by Holm {p_of(pair.holm)}, rank-biserial "
        f"{pair.rank_biserial:+.2f}, d = {pair.dz:.2f}: {told}; {needed(pair.needed)}"
    )


def needed(raters: int | None) -> str:
    """Return the number of raters that tell a pair apart, in words."""
    if raters is None:
        return "no number of raters would tell them apart"
    return f"{raters:,} raters would tell them apart with a power of {st.POWER:.0%}"


def p_of(p: float) -> str:
    """Return a p-value as it is usually written."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def paper_lines() -> list[str]:
    """Return what the paper's own figures allow to tell apart, by the same calculation."""
    made = []
    names = list(PAPER)
    for a, b in ((a, b) for n, a in enumerate(names) for b in names[n + 1 :]):
        alone = st.paired_effect(PAPER[a], PAPER[b])
        agreed = st.paired_effect(PAPER[a], PAPER[b], 0.5)
        made.append(
            f"{PAPER[a][0]} against {PAPER[b][0]}: {PAPER_RATERS} raters have a power of "
            f"{st.power_of(alone, PAPER_RATERS):.0%}, and {st.raters_needed(alone)} are needed for "
            f"{st.POWER:.0%}; if a rater's scores correlate by 0.5, "
            f"{st.power_of(agreed, PAPER_RATERS):.0%} and {st.raters_needed(agreed)}"
        )
    return made


# The page ---------------------------------------------------------------------------------------


def page(study: Study, results: st.Results) -> str:
    """Return the page: every name and comment is text in it, never markup."""
    parts = [
        tag("h1", study.title),
        tag("p", summary(study, results), class_="lead"),
        section("Scores", scores_table(results.systems), note_on_scores(results)),
        section("Votes", *(histogram(system) for system in results.systems)),
        section("Differences", tag("p", friedman_line(results.friedman)), pairs_table(results)),
        section("Raters", tag("p", RULES), raters_table(study, results), *comments(results)),
        section("The paper's test", tag("p", PAPER_WORDS), bullets(paper_lines())),
    ]
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"Results: {study.title}"),
        tag("style", Html(page_file("listen.css") + page_file("results.css"))),
    )
    body = tag("body", tag("main", *parts))
    return "<!doctype html>\n" + tag("html", tag("head", head), body, lang="en")


PAPER_WORDS = (
    "The paper asked 26 people to rate three clips, found 7.0 ± 1.87, 5.3 ± 1.7 and 6.2 ± 2.4, and "
    "called the sample too small to distinguish them. A power calculation (two-sided Wilcoxon "
    "tests, 5 %, each pair by itself) says of which that is true:"
)


def summary(study: Study, results: st.Results) -> str:
    """Return in a sentence what was done."""
    return (
        f"{len(results.kept)} raters heard {len(study.clips)} clips of {study.seconds:.0f} seconds "
        f"blind, in balanced orders, and rated each from 1 ({ANCHORS[1]}) over 5 ({ANCHORS[5]}) to "
        f"10 ({ANCHORS[10]})."
    )


def section(title: str, *parts: Html) -> Html:
    """Return a part of the page with its heading."""
    return tag("section", tag("h2", title), *parts)


def scores_table(systems: Sequence[st.System]) -> Html:
    """Return what raters think of each system."""
    rows = [
        (
            s.name + " (by people)" * s.control,
            shown(s.mean),
            shown(s.sd),
            f"{shown(s.low)} to {shown(s.high)}",
            str(sum(s.votes)),
        )
        for s in systems
    ]
    heads = ("system", "mean", "sd", "95 % interval", "votes")
    return table("A rater's score of a system is the mean over its clips", heads, rows)


def shown(value: float) -> str:
    """Return a number with two decimals, a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def note_on_scores(results: st.Results) -> Html:
    """Return how the intervals were made."""
    return tag("p", f"Intervals: bootstrap over raters, {st.RESAMPLES:,} times.", class_="note")


def histogram(system: st.System) -> Html:
    """Return the votes of a system as bars, each with its number (the paper's figure 9)."""
    most = max(*system.votes, 1)
    step = WIDTH / HIGHEST
    parts = []
    for n, votes in enumerate(system.votes):
        tall = (HEIGHT - 55) * votes / most
        x, y = n * step, HEIGHT - 28 - tall
        parts.append(tag("rect", x=x + 4, y=y, width=step - 8, height=tall, rx=3))
        middle = x + step / 2
        if votes:
            parts.append(tag("text", str(votes), x=middle, y=y - 6, text_anchor="middle"))
        parts.append(tag("text", str(n + 1), x=middle, y=HEIGHT - 8, text_anchor="middle"))
    spoken = ", ".join(f"{n + 1}: {v}" for n, v in enumerate(system.votes))
    drawn = tag(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="votes", role="img",
        aria_label=f"Votes for {system.name}. {spoken}",
    )  # fmt: skip
    told = f"{system.name}: {shown(system.mean)} ± {shown(system.sd)}"
    return tag("figure", tag("figcaption", told), drawn)


def pairs_table(results: st.Results) -> Html:
    """Return the tests of all pairs."""
    rows = [
        (
            f"{p.first} – {p.second}",
            f"{p.difference:+.2f}",
            f"{p.low:+.2f} to {p.high:+.2f}",
            p_of(p.p),
            p_of(p.holm),
            f"{p.rank_biserial:+.2f}",
            f"{p.dz:+.2f}",
            "–" if p.needed is None else f"{p.needed:,}",
        )
        for p in results.pairs
    ]
    heads = (
        "pair", "difference", "95 % interval", "p (Wilcoxon)", "p (Holm)", "rank-biserial r",
        "Cohen's d", f"raters for {st.POWER:.0%} power",
    )  # fmt: skip
    return table("Each two systems, by the same raters", heads, rows)


def raters_table(study: Study, results: st.Results) -> Html:
    """Return the raw scores: a row for each rater who counts, and who doesn't, and why."""
    names = list(dict.fromkeys(clip.system for clip in study.clips))
    rows = [
        (str(r.number + 1), *(f"{r.systems[n]:g}" for n in names), "counts") for r in results.kept
    ]
    for r, why in results.excluded:
        cells = (f"{r.systems[n]:g}" if n in r.systems else "–" for n in names)
        rows.append((str(r.number + 1), *cells, why))
    return table("Raw scores", ("rater", *names, ""), rows)


def comments(results: st.Results) -> list[Html]:
    """Return what raters said, where anyone did."""
    raters = [*results.kept, *(rater for rater, _ in results.excluded)]
    said = [f"Rater {r.number + 1}: {r.comment}" for r in raters if r.comment.strip()]
    return [tag("h3", "Comments"), bullets(said)] if said else []


def bullets(words: Sequence[str]) -> Html:
    """Return a list."""
    return tag("ul", *(tag("li", line) for line in words))
