"""`pytest --benchmark`: the benchmarks instead of the tests."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --benchmark and --quick."""
    parser.addoption("--benchmark", action="store_true", help="run the benchmarks, not the tests")
    parser.addoption(
        "--quick", action="store_true", help="one round of each benchmark, to see it work"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-benchmark looks: take its tests alone, from benchmarks/."""
    if config.getoption("--benchmark"):
        config.option.benchmark_skip = False
        config.option.benchmark_only = True
        config.option.benchmark_columns = ["median", "iqr", "rounds"]
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(BENCHMARKS)]
