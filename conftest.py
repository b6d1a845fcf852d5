"""How the tests are run: two tiers, on all cores; and `pytest --benchmark`."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
WITHOUT_SLOW = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --all, --benchmark and --quick."""
    parser.addoption("--all", action="store_true", help="the tests marked slow too")
    parser.addoption("--benchmark", action="store_true", help="run the benchmarks, not the tests")
    parser.addoption("--quick", action="store_true", help="of --benchmark: one round of each")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Before pytest-xdist looks: where no part of the tests is named, run them on all cores.

    Only then are slow ones left out: who names a file or a test wants all of it.
    """
    option = config.option
    if (given := getattr(config, "workerinput", None)) is not None:
        config.stash[WITHOUT_SLOW] = given["without slow"]
        return
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS and not option.benchmark
    config.stash[WITHOUT_SLOW] = whole and not (option.all or option.markexpr or option.keyword)
    if whole and getattr(option, "numprocesses", 0) is None and not option.collectonly:
        option.numprocesses, option.dist = "auto", "worksteal"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist."""
    node.workerinput["without slow"] = node.config.stash[WITHOUT_SLOW]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-benchmark looks: take its tests alone, from benchmarks/."""
    config.addinivalue_line("markers", "slow(keep=0): for --all, but for the first `keep` cases")
    if config.getoption("--benchmark"):
        config.option.benchmark_skip = False
        config.option.benchmark_only = True
        config.option.benchmark_columns = ["median", "iqr", "rounds"]
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(BENCHMARKS)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the mark off cases that are kept; leave the slow ones out."""
    cases: Counter[str] = Counter()
    slow = []
    for item in items:
        mark = item.get_closest_marker("slow")
        if mark is None:
            continue
        function = item.nodeid.partition("[")[0]
        cases[function] += 1
        if cases[function] > mark.kwargs.get("keep", 0):
            slow.append(item)
        else:
            item.own_markers = [one for one in item.own_markers if one is not mark]
    if config.stash[WITHOUT_SLOW]:
        left_out = set(slow)
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out."""
    if config.stash[WITHOUT_SLOW]:
        terminalreporter.write_line("the slow tests were left out: bin/test --all runs them too")
