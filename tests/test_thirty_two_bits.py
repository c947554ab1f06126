"""Every public system in JAX's default precision, in a process without 64 bits, against its states in 64 bits."""

import os
import subprocess
import sys
from pathlib import Path

import every_system
import jax
import jax.numpy as jnp
import numpy as np
import pytest

SCRIPT = Path(every_system.__file__)
SAMPLED = "sampled spins"


QUICK = (*every_system.FITTED, "oscillators", "layered resistors", "recurrent", "driven", "paths")
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in every_system.SYSTEMS]


def swept(path, names):
    """What a process in 32 bits said of some systems, and the arrays that it saved."""
    packages = os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "JAX_ENABLE_X64": "0", "PYTHONPATH": packages}
    done = subprocess.run([sys.executable, SCRIPT, path, *names], capture_output=True, text=True, env=environment)
    print(done.stdout)
    return done, np.load(path) if path.exists() else None


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return swept(tmp_path_factory.mktemp("quick") / "states.npz", QUICK)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return swept(tmp_path_factory.mktemp("others") / "states.npz", [n for n in every_system.SYSTEMS if n not in QUICK])


@pytest.mark.parametrize("which", ["quick", pytest.param("others", marks=pytest.mark.slow)])
def test_every_system_does_everything_in_32_bits(which, request):
    done, _ = request.getfixturevalue(which)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("name", [each for each in ALL if SAMPLED not in str(each)])
def test_states_in_32_bits_are_those_in_64(name, request):
    narrow = request.getfixturevalue("quick" if name in QUICK else "others")
    saved = narrow[1]
    take = lambda kind: [saved[key] for key in saved.files if key.startswith(f"{name}/{kind} ")]
    wide = lambda array: jnp.asarray(array, jnp.float64)
    net = every_system.replaced(every_system.SYSTEMS[name](), [wide(leaf) for leaf in take("leaf")])
    found = every_system.relax(net, wide(saved[f"{name}/x"]), None, None, every_system.KEY)
    assert found.usable
    states = jax.tree.leaves(found.state)
    assert len(states) == len(take("state"))
    for state, other in zip(states, take("state"), strict=True):
        np.testing.assert_allclose(other, state, atol=1e-3 * max(1.0, np.abs(state).max(initial=0.0)))
