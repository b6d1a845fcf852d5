"""The table at the end of `pytest --benchmark`: tokens a second, by case and backend."""

from collections.abc import Iterator
from typing import Any

import pytest

from gpu_report import table

GROUP = "throughput: "  # begins the group of each test that is in the table


class Throughput:
    """What test_throughput.py measured.

    ceilings: FLOP a second of a GEMM and bytes a second, by device; missing: backends that can't be
    used here, and why.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, str]]] = {}
        self.ceilings: dict[str, dict[str, float]] = {}
        self.missing: dict[str, str] = {}

    def add(self, case: str, backend: str, rate: float, bound: float) -> None:
        """Add tokens a second, and the most that the ceilings allow."""
        row = {"case": case, "backend": backend, "tokens a second": f"{rate:,.0f}"}
        self.rows.setdefault(case, []).append(row | {"of bound": f"{rate / bound:.0%}"})

    def lines(self) -> list[str]:
        """Return the table, the backends of a case below each other, and what it rests on."""
        lines = table([row for rows in self.rows.values() for row in rows])
        for device, ceiling in self.ceilings.items():
            rates = f"{ceiling['fp32'] / 1e9:,.0f} GFLOP/s of a GEMM, {ceiling['bytes'] / 1e9:,.1f}"
            lines.append(f"bound, from what was measured first on the {device}: {rates} GB/s")
        return lines + [f"{backend}: {why}" for backend, why in self.missing.items()]


RESULTS = pytest.StashKey[Throughput]()


@pytest.fixture(scope="session")
def throughput(pytestconfig: pytest.Config) -> Throughput:
    """Where the table's figures go."""
    return pytestconfig.stash.setdefault(RESULTS, Throughput())


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> Any:
    """Return what asks for so many rounds after one to warm up, or, with `--quick`, for one."""
    quick = pytestconfig.getoption("--quick")
    return lambda n: {"rounds": 1 if quick else n, "warmup_rounds": 1}


@pytest.hookimpl(hookwrapper=True, optionalhook=True)
def pytest_benchmark_group_stats() -> Iterator[None]:
    """Leave out of pytest-benchmark's tables what is in ours."""
    outcome: Any = yield
    groups = outcome.get_result()
    outcome.force_result([g for g in groups if not (g[0] or "").startswith(GROUP)])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    found = config.stash.get(RESULTS, None)
    if found is not None and found.rows:
        terminalreporter.section("throughput")
        terminalreporter.write_line("\n".join(found.lines()))
