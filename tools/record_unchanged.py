"""Record anew what commands give, which tests/test_unchanged.py holds them to.

    python tools/record_unchanged.py [--write] [WORD…]

Runs each command of tests/unchanged/cases.py with all the words in its line, and says which give
something else than was recorded; --write records it. Do that only where a change is meant to change
music or numbers, and say so in CHANGELOG.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "harness"))

from unchanged import FIXTURE, entry_of, probe
from unchanged.cases import CASES
from unchanged.place import Place


def main() -> int:
    """Run the commands; return 1 where some differ and nothing is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    kept = json.loads(FIXTURE.read_text("utf-8")) if FIXTURE.exists() else {"results": {}}
    here = probe()
    if kept.get("probe", here) != here and args.words:
        raise SystemExit("this machine is not the one that recorded: record all, without words")
    lines = [line for line in CASES if all(word in line for word in args.words)]
    results = {line: kept["results"][line] for line in CASES if line in kept["results"]}
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "place")
        for line in lines:
            music = line.startswith("sample")
            entry = entry_of(place.result(line), music, music and place.is_steady(line))
            if entry != kept["results"].get(line):
                different += 1
                print(line)
            results[line] = entry
    print(f"{different} of {len(lines)} commands give something else than was recorded")
    if args.write:
        ordered = {line: results[line] for line in CASES if line in results}
        rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in ordered.items()]
        body = ",\n".join(rows)
        FIXTURE.write_text(
            f'{{"probe": {json.dumps(here)},\n"results": {{\n{body}\n}}}}\n', encoding="utf-8"
        )
    return int(bool(different) and not args.write)


if __name__ == "__main__":
    sys.exit(main())
