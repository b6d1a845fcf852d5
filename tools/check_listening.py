"""Check the listening test under load: many browsers at once, and a server that is killed.

    python tools/check_listening.py browsers --raters 26 --shots DIR
    python tools/check_listening.py kills --raters 200 --kills 2

`browsers` lets as many headless Chromiums as there are raters drive the real page at once, their
scores drawn from the means and deviations that the paper reports for its three clips, and writes
the results that bin/listen makes of them. `kills` sends the ratings of as many raters over HTTP,
ends the server with kill -9 as often as asked, starts it again, and compares what was acknowledged
with what the file holds.
"""

import argparse
import base64
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "harness"))

import browser
from crowd import Crowd, Server, check_kept

from listening import Rater, small_study
from lstm_music.listening import results, statistics
from lstm_music.listening.results import PAPER
from lstm_music.listening.study import Study


def main() -> None:
    """Run what is asked for and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("browsers", "kills"))
    parser.add_argument("--raters", type=int, default=26)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each clip")
    parser.add_argument("--db", type=Path, help="a study of three systems to rate (else of tones)")
    parser.add_argument("--shots", type=Path, help="folder for screenshots and results")
    args = parser.parse_args()
    browser.PATIENCE = 600
    with tempfile.TemporaryDirectory() as folder:
        if args.db:
            study = Study(args.db)
        else:
            study = small_study(Path(folder), 3, 1, args.seconds, title="A listening test")
        (browsers if args.what == "browsers" else kills)(study, args)


def browsers(study: Study, args: argparse.Namespace) -> None:
    """Let raters use the real page at once."""
    systems = list(dict.fromkeys(clip.system for clip in study.clips))
    paper = dict(zip(systems, PAPER.values(), strict=True))
    failures: list[str] = []
    sent: Counter[tuple[str, int]] = Counter()
    begun = threading.Barrier(args.raters)

    def take(number: int, address: str) -> None:
        rng = np.random.default_rng(number)
        size = (1280, 900) if number % 2 else (390, 844)
        try:
            with Rater(*size, dark=number % 4 > 1) as rater:
                rater.visit(address)
                begun.wait(600)  # all are there before any begins
                shot(rater, args.shots, number, "welcome")
                rater.begin()
                (key,) = [k for k in [rater.run(f"localStorage['lstm-music-{study.id}']")] if k]
                mine = study.rater(key)[0]
                for place in range(study.places):
                    rater.hear()
                    clip = study.order(mine)[place]
                    score = int(np.clip(np.rint(rng.normal(*paper[clip.system])), 1, 10))
                    if place == 1:
                        rater.key(str(score % 10), f"Digit{score % 10}")
                        shot(rater, args.shots, number, "clip")
                    rater.rate(score)
                    sent[clip.id, score] += 1
                rater.wait("!document.getElementById('end').hidden")
                shot(rater, args.shots, number, "end")
                failures.extend(rater.complaints)
        except Exception as error:
            failures.append(f"rater {number}: {error!r}")

    start = time.perf_counter()
    with Server(study.path) as server:
        address = f"http://127.0.0.1:{server.port}/"
        threads = [threading.Thread(target=take, args=(n, address)) for n in range(args.raters)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    kept = Counter((clip, score) for _, _, clip, score, _, _ in study.all_ratings())
    print(f"{args.raters} browsers at once, {time.perf_counter() - start:.0f} s")
    print(f"ratings given {sum(sent.values())}, in the file {sum(kept.values())}")
    print(f"the same scores of the same clips: {sent == kept}; failures: {failures}")
    found = statistics.analyse(study)
    print("\n".join(results.lines(found)))
    if args.shots:
        page = args.shots / "results.html"
        page.write_text(results.page(study, found), "utf-8")
        for name, size in (("results", (1280, 900)), ("results-phone", (390, 844))):
            with Rater(*size) as rater:
                rater.open(page)
                save(rater, args.shots / f"{name}.png")


def shot(rater: Rater, folder: Path | None, number: int, name: str) -> None:
    """Save what the first four raters see: a phone and a desktop, in the light and in the dark."""
    if folder and number < 4:
        kind = ("phone", "desktop", "phone-dark", "desktop-dark")[number]
        save(rater, folder / f"{name}-{kind}.png")


def save(rater: Rater, path: Path) -> None:
    """Save a picture of the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(rater.picture(whole=True)))


def kills(study: Study, args: argparse.Namespace) -> None:
    """Let raters rate over HTTP while the server is killed."""
    start = time.perf_counter()
    with Server(study.path) as server:
        crowd = Crowd(server.port, study, args.raters)
        crowd.start()
        whole = args.raters * study.places
        for n in range(args.kills):
            crowd.wait(whole * (n + 1) // (args.kills + 2))
            print(f"kill -9 after {len(crowd.acknowledged)} acknowledged ratings")
            server.kill_and_restart()
        crowd.join()
    found = check_kept(study, crowd)
    print(f"{args.raters} raters, {time.perf_counter() - start:.0f} s: {found}")
    print(f"asked again, by status (None: the connection broke): {dict(crowd.asked_again)}")
    print(f"refused wrongly: {crowd.failures}")


if __name__ == "__main__":
    main()
