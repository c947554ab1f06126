import pytest

LONG = (
    "02-elastic",
    "03-ising",
    "04-oscillators",
    "05-hopfield",
    "06-predictive-coding",
    "07-transverse-ising",
    "08-quantum-oscillators",
    "09-black-box",
    "10-recurrent",
    "11-trajectories",
    "12-driven",
    "13-theorems",
    "14-resistors",
    "15-rules",
    "16-your-own-system",
    "17-classical-to-quantum",
    "18-a-package-of-its-own",
)
"""Notebooks that take half a minute and more: slow tests."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.suffix == ".ipynb" and item.path.stem in LONG:
            item.add_marker(pytest.mark.slow)
