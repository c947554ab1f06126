"""Measurements of `benchmarks` as modules, which no package holds."""

import importlib.util
import sys
from pathlib import Path


def benchmark(name):
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", Path(__file__).parents[2] / f"benchmarks/{name}.py"
    )
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
