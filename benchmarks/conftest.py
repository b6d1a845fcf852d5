"""One table of throughput at the end of `pytest --benchmark`: case × backend."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

CPUS = ("numba",)
GPU = "cupy"
GROUP = "throughput: "  # begins the group of each test that is in the table


@dataclass
class Throughput:
    """What test_throughput.py measured."""

    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    """Tokens a second, by case and backend."""
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    """The most that the ceilings allow, likewise."""
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)
    """FLOP a second of a GEMM and bytes a second, by device."""
    missing: dict[str, str] = field(default_factory=dict)
    """Backends that can't be used here, and why."""

    def add(self, case: str, backend: str, rate: float, bound: float) -> None:
        self.rates.setdefault(case, {})[backend] = rate
        self.bounds.setdefault(case, {})[backend] = bound

    def cells(self, case: str, backend: str) -> tuple[str, str]:
        """Return what the table says of a backend: tokens a second, share of the bound."""
        rate = self.rates[case].get(backend)
        if rate is None:
            nothing = "no GPU" if backend == GPU else "not here"
            return nothing if backend in self.missing else "not run", "-"
        return f"{rate:,.0f}", f"{rate / self.bounds[case][backend]:.1%}"

    def table(self) -> list[list[str]]:
        """Return rows of cells, the headings first."""
        heads = ["tokens a second"]
        for backend in (*CPUS, GPU):
            heads += [backend, "of bound"]
        rows = [[*heads, "GPU/CPU"]]
        for case, rates in self.rates.items():
            cells = [cell for backend in (*CPUS, GPU) for cell in self.cells(case, backend)]
            cpu = max((rates[b] for b in CPUS if b in rates), default=0)
            ratio = f"{rates[GPU] / cpu:.1f}" if cpu and GPU in rates else "-"
            rows.append([case, *cells, "no GPU" if GPU in self.missing else ratio])
        return rows


RESULTS = pytest.StashKey[Throughput]()


@pytest.fixture(scope="session")
def throughput(pytestconfig: pytest.Config) -> Throughput:
    """Where the table's figures go."""
    return pytestconfig.stash.setdefault(RESULTS, Throughput())


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
        said = f"{ceiling['fp32'] / 1e9:,.0f} GFLOP/s of a GEMM, {ceiling['bytes'] / 1e9:,.1f} GB/s"
        terminalreporter.write_line(f"measured ceilings, {device}: {said}")
    for backend, why in found.missing.items():
        terminalreporter.write_line(f"{backend}: {why}")
