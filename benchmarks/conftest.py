"""The table at the end of `pytest --benchmark`: tokens a second, case × backend."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

BACKENDS = {"numpy": "NumPy", "numba": "Numba", "cupy": "CuPy"}
NO_GPU = "no GPU here"
GROUP = "throughput: "  # begins the group of each test that is in the table


@dataclass
class Throughput:
    """What test_throughput.py measured, by case and backend."""

    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    """Tokens a second."""
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    """The most that the ceilings allow, likewise."""
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)
    """FLOP a second of a GEMM and bytes a second, by device."""
    missing: dict[str, str] = field(default_factory=dict)
    """Backends that can't be used here, and why."""

    def add(self, case: str, backend: str, rate: float, bound: float) -> None:
        self.rates.setdefault(case, {})[backend] = rate
        self.bounds.setdefault(case, {})[backend] = bound

    def cells(self, case: str, backend: str, beside: str | None) -> list[str]:
        """Return a backend's tokens a second, their share of the bound, and ratio to another's."""
        rates = self.rates[case]
        if backend not in rates:
            rest = [
                NO_GPU if backend == "cupy" and backend in self.missing else "not run",
                "-",
                "-",
            ]
        else:
            rate, other = rates[backend], rates.get(beside or "")
            share = f"{rate / self.bounds[case][backend]:.0%}"
            rest = [f"{rate:,.0f}", share, f"{rate / other:.2f}" if other else "-"]
        return rest if beside else rest[:2]

    def table(self) -> list[list[str]]:
        """Return rows of cells, the headings first."""
        rows = [["tokens a second", "NumPy", "of bound", "Numba", "of bound", "/NumPy"]]
        rows[0] += ["CuPy", "of bound", "/Numba"]
        for case in self.rates:
            row, before = [case], None
            for backend in BACKENDS:
                row += self.cells(case, backend, before)
                before = backend
            rows.append(row)
        return rows


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
    outcome.force_result(
        [
            (name, group)
            for name, group in outcome.get_result()
            if not (name or "").startswith(GROUP)
        ]
    )


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    found = config.stash.get(RESULTS, None)
    if found is None or not found.rates:
        return
    rows = found.table()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("throughput")
    for row in rows:
        rest = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        terminalreporter.write_line("  ".join([f"{row[0]:<{widths[0]}}", *rest]))
    for device, ceiling in found.ceilings.items():
        rates = (
            f"{ceiling['fp32'] / 1e9:,.0f} GFLOP/s of a GEMM, {ceiling['bytes'] / 1e9:,.1f} GB/s"
        )
        terminalreporter.write_line(f"bound, from what was measured first on the {device}: {rates}")
    for backend, why in found.missing.items():
        terminalreporter.write_line(f"{BACKENDS[backend]}: {why}")
