"""Where the seconds of a test run go: a table, by test file, of tracing, lowering, compiling and loading.

`GROUNDSTATE_COMPILE_TIMES=1 python -m pytest` prints it at the end.
"""

import collections
import time

import jax
import pytest

from substrates.room import memory_maps

KINDS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
    "/jax/compilation_cache/cache_retrieval_time_sec": "loading",
}
COLUMNS = ("seconds", *KINDS.values(), "programs", "kept", "maps")


class CompileTimes:
    """A pytest plug-in. Each test takes its own share along in its report, so that it comes through xdist."""

    def __init__(self):
        self.spent, self.inner = collections.Counter(), []
        jax.monitoring.register_event_duration_secs_listener(self.timed)
        jax.monitoring.register_event_listener(self.counted)

    def timed(self, event, seconds, **_):
        """Seconds of one kind, less those of what was compiled on the way."""
        if event in KINDS:
            start, inside = time.monotonic() - seconds, 0.0
            while self.inner and self.inner[-1][0] >= start:
                inside += self.inner.pop()[1]
            self.inner.append((start, seconds))
            self.spent[KINDS[event]] += seconds - inside
            self.spent["programs"] += KINDS[event] == "compiling"

    def counted(self, event, **_):
        self.spent["kept"] += event == "/jax/compilation_cache/cache_hits"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.spent.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        report.compile_times = {**self.spent, "seconds": call.duration, "maps": memory_maps()}
        self.spent.clear()
        return report

    def pytest_terminal_summary(self, terminalreporter):
        table = collections.defaultdict(collections.Counter)
        for reports in terminalreporter.stats.values():
            for report in reports:
                if hasattr(report, "compile_times"):
                    row = table[report.nodeid.split("::")[0]]
                    maps = max(row["maps"], report.compile_times["maps"])
                    row.update(report.compile_times)
                    row["maps"] = maps
        rows = sorted(table.items(), key=lambda entry: -entry[1]["seconds"])
        whole = sum(table.values(), collections.Counter())
        whole["maps"] = max((row["maps"] for _, row in rows), default=0)
        terminalreporter.section("seconds of compilation by file")
        terminalreporter.line("| file | " + " | ".join(COLUMNS) + " |")
        terminalreporter.line("|---|" + "---|" * len(COLUMNS))
        for name, row in [*rows, ("all", whole)]:
            terminalreporter.line(f"| {name} | " + " | ".join(f"{row[column]:.0f}" for column in COLUMNS) + " |")
