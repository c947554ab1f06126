import os
import warnings
from pathlib import Path

from hurried import xla_flags

# What depends on full optimisation (tests/test_jax_is_right.py) runs in processes of its own.
os.environ.setdefault("XLA_FLAGS", xla_flags())

import jax
import pytest
from compile_times import CompileTimes
from hypothesis import HealthCheck, settings

from substrates import room
from substrates.session import keep_compiled

with warnings.catch_warnings(action="always"):  # without the folder the tests take longer, and that is all
    keep_compiled()
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile(
    "groundstate",
    deadline=None,  # the first example of a shape compiles
    max_examples=20,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("groundstate")


@pytest.fixture
def key():
    return jax.random.key(0)


def pytest_configure(config):
    if os.environ.get("GROUNDSTATE_COMPILE_TIMES"):
        config.pluginmanager.register(CompileTimes())


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    yield
    if crowded():
        jax.clear_caches()


def crowded():
    """Whether compiled programs take an eighth of the memory, or a third of the memory maps that Linux allows.

    Without /proc there is no telling.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return True
    return room.crowded() or pages > os.sysconf("SC_PHYS_PAGES") / 8
