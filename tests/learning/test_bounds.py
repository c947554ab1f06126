"""Bounds of the cost by nudges of either sign, and how close centred nudges come to the exact gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_system import BETAS, KEY, SYSTEMS, input_size, relax
from hypothesis import given, settings
from hypothesis import strategies as st

from learning import EquilibriumPropagation, ImplicitGradient, SquaredError
from substrates import Nudge

SADDLES = "excited quantum spins", "paths", "loops", "driven", "driven amplitudes", "activators and inhibitors"
OTHERS = "sampled spins", "recurrent", "predictive coding circuit", *SADDLES
LEAST_ENERGY = [name for name in SYSTEMS if name not in OTHERS]
"""Those whose equilibria are minima of an energy: excited states, paths, driven motions and the rest of an activator
beside its inhibitor are saddles, samples no states, and others have no energy.
"""

DISCRETE = "spins", "layered spins"
STRONGEST = {"springs": 1e-4, "layered resistors": 1e-3}
"""The strongest nudges, 0.5 where none is given: a stronger negative one outweighs what holds these outputs."""


def overlap(output, target):
    return -jnp.sum(output * target)


COSTS = {"spins at a temperature": overlap}
"""Nudges act in every configuration of an ensemble, so that only linear costs are those of what is read."""

least = eqx.filter_jit(lambda net, x, cost, target, beta, start: net.relax(x, Nudge(cost, target, beta), start))


def shown(name, seed):
    """A system, an input, and its free equilibrium with a cost that is not small."""
    net = SYSTEMS[name]()
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.uniform(-0.6, 0.6, input_size(net)))
    x = jnp.sign(x) if name in DISCRETE else x
    free = relax(net, x, None, None, KEY)
    output = net.read(free.state, x)
    return net, x, free, output, output + jnp.asarray(rng.uniform(-0.5, 0.5, output.shape))


@pytest.mark.parametrize("name", LEAST_ENERGY)
def test_positive_nudges_bound_the_cost_from_below_and_negative_ones_from_above(name):
    """L_(0, beta) <= C(s_0) <= L_(-beta, 0), of least energies, smooth or not; the cost falls along the nudge."""

    @settings(max_examples=5)
    @given(seed=st.integers(0, 2**16), share=st.floats(0.05, 1))
    def holds(seed, share):
        net, x, free, output, target = shown(name, seed)
        beta = share * STRONGEST.get(name, 0.5)
        of = COSTS.get(name, SquaredError())
        plus, minus = (least(net, x, of, target, jnp.asarray(sign * beta), free.state) for sign in (1, -1))
        assert plus.usable
        assert minus.usable
        cost = of(output, target)
        lower, upper = (plus.energy - free.energy) / beta, (free.energy - minus.energy) / beta
        rounding = 1e-11 * (1 + abs(free.energy)) / beta
        assert lower <= cost + rounding
        assert cost <= upper + rounding
        costs = [of(net.read(found.state, x), target) for found in (minus, free, plus)]
        assert costs[2] - rounding <= costs[1] <= costs[0] + rounding

    holds()


@pytest.mark.parametrize(
    "name", ["resistors of a graph", "springs", "continuous Hopfield", "quantum spins", "quantum oscillators"]
)
def test_centred_nudges_of_a_hundredth_point_along_the_exact_gradient(name):
    net, x, _, _, target = shown(name, 1)
    batch = x[None], target[None]
    found = EquilibriumPropagation(BETAS.get(name, 0.01))(net, *batch).gradient
    exact = ImplicitGradient()(net, *batch).gradient
    g, h = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (found, exact))
    assert g @ h / (jnp.linalg.norm(g) * jnp.linalg.norm(h)) > 0.9999
