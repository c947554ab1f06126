"""The installed JAX computes right numbers: jaxlib 0.10.2 did not."""

import os
import subprocess
import sys

import pytest

from substrates._versions import WRONG, warn_if_wrong

ROWS = """
for dtype in (jnp.float32, jnp.float64):
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(10, 16)).astype(dtype)
    rows = generator.normal(size=(20_000, 16)).astype(dtype)
    squares = jax.vmap(lambda row: jnp.sum((jnp.asarray(matrix) @ row) ** 2))
    exact = np.sum((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2, axis=1)
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(jax.jit(squares)(rows), exact, rtol=tolerance)
    np.testing.assert_allclose(squares(rows), exact, rtol=tolerance)
"""

AXES = """
parts = [np.random.default_rng(k).normal(size=[3 if axis == k else 1 for axis in range(8)]) for k in range(8)]
total = jax.jit(lambda *arrays: sum(arrays))(*map(jnp.asarray, parts))
np.testing.assert_allclose(total, sum(parts), rtol=1e-12, atol=1e-12)
"""


@pytest.mark.parametrize("program", [ROWS, AXES], ids=["a vmap over many rows", "a broadcast of many axes"])
def test_what_is_compiled_with_full_optimisation_is_right(program):
    imports = "import jax, jax.numpy as jnp, numpy as np\njax.config.update('jax_enable_x64', True)\n"
    surroundings = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", imports + program], capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_version_is_named_with_the_remedy(wrong):
    with pytest.warns(RuntimeWarning, match=rf"jaxlib {wrong} computes wrong numbers.*pip install"):
        warn_if_wrong("jaxlib", wrong)


def test_the_warning_is_given_by_a_bare_import():
    program = (
        "import importlib.metadata as m, warnings\n"
        "real = m.version\n"
        "m.version = lambda name: '0.10.2' if name == 'jaxlib' else real(name)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import substrates\n"
        "print([str(w.message) for w in caught if w.category is RuntimeWarning])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "jaxlib 0.10.2 computes wrong numbers" in done.stdout


def test_a_right_version_is_silent():
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import substrates"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
