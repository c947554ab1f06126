import os

# The tests compile thousands of small programs and run each a few times: less optimisation halves their time. What
# depends on full optimisation (tests/test_jax_is_right.py) runs in processes of its own.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

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


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_file():
    # thousands of compiled programs in one process take gigabytes, and more memory maps than Linux allows
    yield
    jax.clear_caches()
