"""Many systems of different sizes in one process, which would fill it with compiled programs."""

import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import sys
import jax.numpy as jnp
import numpy as np
from substrates import ResistorNetwork, room
from learning import EquilibriumPropagation

sizes, each, limit = map(int, sys.argv[1:])
if limit:
    room.crowded = lambda: room.memory_maps() > limit
rng, rule = np.random.default_rng(0), EquilibriumPropagation(0.01, "centered")
for k in range(sizes * each):
    n = 5 + k // each
    edges = [(i, i + 1) for i in range(n - 1)] + [tuple(rng.choice(n, 2, replace=False)) for _ in range(n)]
    ends = {"inputs": [0, n - 1], "outputs": [n // 2]}
    net = ResistorNetwork.from_edges(edges, conductance=rng.uniform(0.5, 2, len(edges)), **ends)
    estimate = rule(net, jnp.array([[1.0, 0.2]]), jnp.array([[0.3]]))
    assert jnp.all(jnp.isfinite(estimate.gradient.conductance)), k
    print(room.memory_maps())
"""


def maps_of(*arguments):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return np.array(ran.stdout.split(), int)


def test_programs_are_dropped_before_they_crowd_the_process():
    maps = maps_of(8, 1, 1500)
    if not maps.any():
        pytest.skip("this platform does not tell how many memory maps a process has")
    assert maps.max() < 3000
    assert np.any(np.diff(maps) < -500)


@pytest.mark.slow
def test_two_thousand_graphs_of_sixty_sizes():
    """With a limit that forty of these sizes reach; the sixty of them would take some 26,000 maps."""
    maps = maps_of(60, 35, 10_000)
    assert len(maps) == 2100
    assert maps.max() < 12_000
