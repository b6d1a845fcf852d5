"""Which tests no pass of CI has run, and which files the second pass has to run.

    python .ci/skips.py files FIRST.xml…     test files that an extra makes run otherwise
    python .ci/skips.py never REPORT.xml…    fails where a test is skipped in all reports

The reports are pytest's --junitxml.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
# What a test file that isn't skipped says where it runs otherwise with an extra.
EXTRAS = re.compile(
    r"\b(music21|verovio|score|torch|mpi4py|distributed|rtmidi)\b|bin/figures|\"figures\""
)
# The reasons for which a test may be skipped in every pass: that data is absent, or instructions.
WITHOUT_INSTRUCTIONS = r"this processor has no "
WITHOUT_DATA = r"LSTM_MUSIC_DATA|no odd-midi|no bach-417"  # real music, which isn't in the repo


def outcomes(reports: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each test of the reports, and why it was skipped, None where it ran."""
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            skipped = case.find("skipped")
            reason = None if skipped is None else skipped.get("message", "")
            yield f"{case.get('classname', '')}::{case.get('name')}", reason


def file_of(test: str) -> str:
    """Return the file of a test of a report; of a module that is skipped whole, its own."""
    module, _, name = test.partition("::")
    return (module or name).replace(".", "/") + ".py"


def files(reports: Sequence[str]) -> int:
    """Print the files with a skipped test, and those that speak of an extra."""
    found = {file_of(test) for test, reason in outcomes(reports) if reason is not None}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if EXTRAS.search(path.read_text("utf-8")):
            found.add(path.relative_to(ROOT).as_posix())
    print("\n".join(sorted(found)))
    return 0


def never(reports: Sequence[str]) -> int:
    """Print the tests that were skipped in all reports without leave; return the exit status."""
    found = list(outcomes(reports))
    ran = {test for test, reason in found if reason is None}
    # A module that is skipped whole is reported as a test of its own, ::tests.test_oracle; a test
    # without any case here as [NOTSET].
    ran |= {f"::{test.partition('::')[0]}" for test in ran}
    ran |= {f"{test.partition('[')[0]}[NOTSET]" for test in ran}
    has_data = (ROOT.parent / "shared" / "data").is_dir()
    left = {
        test: reason
        for test, reason in found
        if reason is not None
        and test not in ran
        and (has_data or not re.search(WITHOUT_DATA, reason))
        and not re.search(WITHOUT_INSTRUCTIONS, reason)
    }
    for test, reason in sorted(left.items()):
        print(f"no pass has run {test}: {reason}")
    print(f"{len(left)} tests were skipped in every pass without leave")
    return bool(left)


if __name__ == "__main__":
    sys.exit({"files": files, "never": never}[sys.argv[1]](sys.argv[2:]))
