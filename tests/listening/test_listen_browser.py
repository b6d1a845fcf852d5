"""The page of the listening test in a real browser: by keyboard, by touch, and without a server."""

import json
import threading
import time

import pytest
from browser import CHROMIUM

from listening import HOSTILE, PLACE, SHOWN, Rater, served, small_study

pytest.importorskip("flask", reason="the extra 'listen' is not installed")
pytest.importorskip("waitress", reason="the extra 'listen' is not installed")

from lstm_music.listening.export import read_back, static_page

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here to run the page: apt-get install chromium"
)
ENDED = "!document.getElementById('end').hidden"
NAMELESS = """[...document.querySelectorAll('button, input, textarea, progress, audio')].filter(
    (e) => e.id !== 'audio' && !e.getAttribute('aria-label') && !e.textContent.trim()
        && !(e.labels && e.labels.length && e.labels[0].textContent.trim())).length"""
CONTRAST = """(() => {
    const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (!/rgba\\(.*, 0\\)|transparent/.test(c)) return c;
        }
        return 'rgb(255, 255, 255)';
    };
    const shown = [...document.querySelectorAll('main *')].filter((e) => e.offsetParent
        && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
    return Math.min(...shown.map((e) => {
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    }));
})()"""


def test_a_rater_by_keyboard_who_leaves_and_comes_back(tmp_path):
    study = small_study(tmp_path, title=HOSTILE, repeats=1, seconds=0.5)
    with served(study) as address, Rater() as rater:
        rater.visit(address)
        assert rater.run("document.getElementById('title').textContent") == HOSTILE
        for _ in range(20):  # to the line of consent, with Tab alone
            rater.key("Tab")
            if rater.run("document.activeElement.id") == "consent":
                break
        rater.key(" ", "Space")
        rater.key("Enter")
        rater.wait(SHOWN)
        rater.key("9", "Digit9")  # before it was heard: nothing
        assert rater.run("document.querySelector('input[name=score]:checked')") is None
        assert rater.run("document.getElementById('next').disabled")
        rater.hear()
        rater.rate(7)
        rater.visit(address)  # as after closing the browser's tab
        rater.wait(f"{PLACE} === 1")
        rater.hear()
        rater.rate(10)
        rater.hear()
        rater.rate(1)
        rater.hear()
        rater.rate(6)
        rater.wait(ENDED)
        rater.run(f"document.getElementById('comment').value = {json.dumps(HOSTILE)}")
        rater.click("#say button")
        rater.wait("document.getElementById('status').textContent.includes('comment')")
        assert rater.complaints == []
        assert all(r.startswith((address, "blob:", "data:")) for r in rater.requests)
    assert [(r[1], r[3]) for r in study.all_ratings()] == [(0, 7), (1, 10), (2, 1), (3, 6)]
    assert study.all_raters()[0][2] == HOSTILE


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_can_be_read(tmp_path, dark):
    study = small_study(tmp_path, systems=2, seconds=0.5)
    with served(study, "a-code-word") as address, Rater(360, 740, dark) as rater:
        rater.visit(address + "#token=a-code-word")
        assert rater.run("document.getElementById('code').value") == "a-code-word"
        for _ in range(2):
            assert rater.run("document.documentElement.scrollWidth") <= 360
            assert rater.run(NAMELESS) == 0
            assert rater.run(CONTRAST) > 4.5
            if rater.run(SHOWN):
                break
            rater.begin()
        rater.hear()
        sizes = "[...document.querySelectorAll('.scale label')].map((e) => e.offsetWidth)"
        assert min(rater.run(sizes)) >= 44  # wide enough for a thumb
        rater.click(".scale label:nth-child(8) input")
        rater.click("#next")
        rater.wait(f"{PLACE} === 1")
        assert rater.complaints == []
    assert study.all_ratings()[0][3] == 8


def test_it_goes_on_by_itself_when_the_server_comes_back(tmp_path):
    study = small_study(tmp_path, systems=2, seconds=0.5)
    with Rater() as rater, served(study) as address:
        rater.visit(address)
        rater.begin()
        rater.hear()
        rater.run("window.real = window.fetch; window.fetch = () => Promise.reject('gone')")
        rater.key("4", "Digit4")
        rater.key("Enter")
        rater.wait("document.getElementById('status').textContent.includes('trying again')")
        assert study.all_ratings() == []
        rater.run("window.fetch = window.real")
        rater.wait(f"{PLACE} === 1")
    assert [r[3] for r in study.all_ratings()] == [4]


def test_without_a_server(tmp_path):
    study = small_study(tmp_path, title=HOSTILE, seconds=0.5)
    (tmp_path / "index.html").write_text(static_page(study), "utf-8")
    with Rater() as rater:
        rater.open(tmp_path / "index.html")
        rater.wait("!document.getElementById('welcome').hidden")
        rater.begin()
        for score in (2, 5):
            rater.hear()
            rater.rate(score)
        rater.open(tmp_path / "index.html")
        rater.wait(f"{PLACE} === 2")
        rater.hear()
        rater.rate(9)
        rater.wait(ENDED)
        link = "document.querySelector('#download a')"
        saved = rater.run("api.file().content")
        assert rater.run(f"{link}.download").startswith("ratings-")
        assert rater.complaints == []
        assert all(r.startswith(("file:", "blob:", "data:")) for r in rater.requests)
    (tmp_path / "r.json").write_text(saved)
    assert read_back(study, tmp_path / "r.json")
    assert [r[3] for r in study.all_ratings()] == [2, 5, 9]


@pytest.mark.slow
def test_several_raters_at_once(tmp_path):
    study = small_study(tmp_path, repeats=1, seconds=0.5)
    failures = []

    def take(number, address):
        try:
            with Rater() as rater:
                rater.visit(address)
                rater.begin()
                for place in range(study.places):
                    rater.hear()
                    rater.rate(1 + (number + place) % 10)
                rater.wait(ENDED)
        except Exception as error:
            failures.append(repr(error))

    with served(study) as address:
        threads = [threading.Thread(target=take, args=(n, address)) for n in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
    assert failures == []
    ratings = study.all_ratings()
    assert len(ratings) == 3 * 4 and len({r[:2] for r in ratings}) == 12
    assert len({tuple(r[2] for r in ratings if r[0] == n) for n in range(3)}) == 3
