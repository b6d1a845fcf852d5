"""The statistics: published examples, simulations, and rules for raters."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from listening import HOSTILE, put_ratings, small_study, tone
from lstm_music.listening import results as told
from lstm_music.listening import statistics as st
from lstm_music.listening.study import create


def simulated_power(systems, raters, correlation=0.0, studies=1000, seed=0):
    """Return how often studies find what is there: Friedman's test, and each pair by Holm.

    systems: mean and sd; scores are drawn from normal distributions, rounded, kept within 1 to 10.
    """
    rng = np.random.default_rng(seed)
    means, sds = np.array(systems).T
    spread = np.outer(sds, sds) * (np.eye(len(sds)) * (1 - correlation) + correlation)
    found_all, found_pairs = 0, np.zeros(len(sds) * (len(sds) - 1) // 2)
    for _ in range(studies):
        scores = rng.multivariate_normal(means, spread, raters)
        scores = np.clip(np.rint(scores), 1, 10).T
        table = {str(n): row for n, row in enumerate(scores)}
        test = st.friedman(table)
        found_all += test is not None and test.p < st.ALPHA
        ps = [
            st.wilcoxon(scores[a] - scores[b])
            for a in range(len(scores))
            for b in range(a + 1, len(scores))
        ]
        found_pairs += np.array(st.holm(ps)) < st.ALPHA
    return found_all / studies, [float(x) for x in found_pairs / studies]


def test_friedman_is_rs_published_example():
    """R's help of friedman.test: Hollander & Wolfe (1973), page 140ff, rounding first base."""
    times = np.array([
        5.40, 5.50, 5.55, 5.85, 5.70, 5.75, 5.20, 5.60, 5.50, 5.55, 5.50, 5.40, 5.90, 5.85, 5.70,
        5.45, 5.55, 5.60, 5.40, 5.40, 5.35, 5.45, 5.50, 5.35, 5.25, 5.15, 5.00, 5.85, 5.80, 5.70,
        5.25, 5.20, 5.10, 5.65, 5.55, 5.45, 5.60, 5.35, 5.45, 5.05, 5.00, 4.95, 5.50, 5.50, 5.40,
        5.45, 5.55, 5.50, 5.55, 5.55, 5.35, 5.45, 5.50, 5.55, 5.50, 5.45, 5.25, 5.65, 5.60, 5.40,
        5.70, 5.65, 5.55, 6.30, 6.30, 6.25,
    ]).reshape(22, 3)  # fmt: skip
    test = st.friedman({str(k): times[:, k] for k in range(3)})
    assert test.statistic == pytest.approx(11.1429, abs=1e-4)
    assert test.p == pytest.approx(0.003805, abs=1e-6)
    assert test.agreement == pytest.approx(11.142857 / 44)


def test_wilcoxon_is_rs_published_example():
    """R's help of wilcox.test, Hollander & Wolfe (1973), 29f: V = 40, p-value = 0.01953."""
    x = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    y = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    one_sided = stats.wilcoxon(x, y, alternative="greater")
    assert one_sided.statistic == 40 and one_sided.pvalue == pytest.approx(0.01953, abs=1e-5)
    assert st.wilcoxon(x - y) == pytest.approx(0.03906, abs=1e-5)
    assert st.rank_biserial(x - y) == pytest.approx((40 - 5) / 45)


def test_holm_is_rs():
    """R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm"), and in another order."""
    assert st.holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert st.holm([0.04, 0.001, 0.03]) == pytest.approx([0.06, 0.003, 0.06])
    assert st.holm([0.9, 0.8]) == [1.0, 1.0]


def test_power_of_the_t_test_is_rs(monkeypatch):
    """R: power.t.test(delta=1, sd=1, power=.90, type="paired"): n = 12.58546 pairs."""
    monkeypatch.setattr(st, "EFFICIENCY", 1.0)
    assert st.raters_needed(1.0, power=0.9) == 13
    assert st.power_of(1.0, 12.58546) == pytest.approx(0.9, abs=1e-4)
    assert st.raters_needed(0.5) == 34  # G*Power: 34 pairs for dz 0.5, 80 %


def test_the_papers_figures_can_tell_one_pair_apart():
    one, two, three = told.PAPER.values()
    far, near, middle = (st.paired_effect(*p) for p in ((one, two), (one, three), (two, three)))
    assert st.power_of(far, 26) > 0.8 > 0.4 > max(st.power_of(x, 26) for x in (near, middle))
    assert [st.raters_needed(x) for x in (far, near, middle)] == [21, 121, 90]
    _, pairs = simulated_power(list(told.PAPER.values()), 26, studies=200)
    assert pairs[0] > 0.6 > 0.35 > max(pairs[1:])


def test_simulated_power_agrees_with_the_calculation():
    systems = [(5.0, 1.5), (6.0, 1.5)]
    needed = st.raters_needed(st.paired_effect(*systems))
    _, (found,) = simulated_power(systems, needed, studies=400)
    assert found == pytest.approx(0.8, abs=0.08)
    _, (chance,) = simulated_power([(5.0, 1.5)] * 2, 30, studies=400)
    assert chance < 0.09


def test_degenerate_scores():
    same = np.full(5, 4.0)
    assert st.wilcoxon(same - same) == 1 and st.rank_biserial(same - same) == 0
    assert st.friedman({"a": same, "b": same, "c": same}).p == 1
    assert st.friedman({"a": same, "b": same}) is None
    (pair,) = st.pairs_of({"a": same, "b": same + 1})
    assert math.isinf(pair.dz) and pair.needed == 3
    assert st.pairs_of({"a": same[:1], "b": same[:1]}) == []
    assert st.raters_needed(0.0) is None


# A study ----------------------------------------------------------------------------------------


def test_a_study_is_analysed_and_told(tmp_path):
    study = small_study(tmp_path, systems=3, clips=2, title=HOSTILE)
    rng = np.random.default_rng(0)
    means = {"maker-0": 7.5, "maker-1": 5, "maker-2": 3}
    tables = [
        {c.id: int(np.clip(rng.normal(means[c.system], 1.2), 1, 10)) for c in study.clips}
        for _ in range(24)
    ]
    put_ratings(study, tables)
    found = st.analyse(study)
    assert len(found.kept) == 24 and not found.excluded
    for system in found.systems:
        mine = [np.mean([t[c.id] for c in study.clips if c.system == system.name]) for t in tables]
        assert system.mean == pytest.approx(np.mean(mine))
        assert system.sd == pytest.approx(np.std(mine, ddof=1))
        assert system.low < system.mean < system.high
        assert sum(system.votes) == 48
    assert found.friedman.p < 1e-6
    assert all(pair.holm < 0.05 and pair.low > 0 for pair in found.pairs)
    page = told.page(study, found)
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert page.count('class="votes"') == 3 and "Wilcoxon" in page
    made = json.dumps(told.as_json(study, found), allow_nan=False)
    assert "maker-0" in made
    assert any("differ" in line for line in told.lines(found))


def test_names_and_comments_are_never_markup(tmp_path):
    rows = [(f"{HOSTILE}{n}", HOSTILE, False, tone(0.1)) for n in range(3)]
    study = create(tmp_path / "s.sqlite", HOSTILE, rows, 0.1, 0)
    put_ratings(study, [{clip.id: 3 + n for n, clip in enumerate(study.clips)}])
    with study.writing() as db:
        db.execute("UPDATE raters SET comment = ?", (HOSTILE,))
    page = told.page(study, st.analyse(study))
    assert page.count("<script") == page.count("<img") == 0
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") > 10 and "default-src" in page


def test_careless_raters_are_excluded_by_the_stated_rules(tmp_path):
    study = small_study(tmp_path, systems=4, repeats=1, control=True)
    good = {"maker-0": 4, "maker-1": 6, "maker-2": 7, "maker-3": 9}
    put_ratings(study, [good, dict.fromkeys(good, 5), good | {"maker-3": 2}, good, good])
    order = study.order(3)
    with study.writing() as db:
        far = 10 if good[order[0].system] < 6 else 1
        db.execute("UPDATE ratings SET score = ? WHERE rater = 3 AND place = 4", (far,))
        db.execute("DELETE FROM ratings WHERE rater = 4 AND place > 1")
    found = st.analyse(study)
    assert [rater.number for rater in found.kept] == [0]
    assert [why.split(" ")[0] for _, why in found.excluded] == ["gave", "rated", "rated", "did"]
    kept = st.analyse(study, keep_all=True)
    assert len(kept.kept) == 4 and [why for _, why in kept.excluded] == ["did not rate all clips"]
    page = told.page(study, found)
    assert "did not rate all clips" in page and told.RULES.split(";")[0] in page


def test_an_empty_study_has_a_page(tmp_path):
    study = small_study(tmp_path)
    found = st.analyse(study)
    page = told.page(study, found)
    assert "0 raters" in page and "nan" not in page
    json.dumps(told.as_json(study, found), allow_nan=False)
    assert told.lines(found) == ["0 raters count, 0 don't"]
