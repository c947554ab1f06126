"""How large programs are and how often they are compiled, in numbers that no machine changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from equations import equations
from every_system import KEY, SYSTEMS, input_size

from learning import EquilibriumPropagation, SquaredError
from learning.contrastive import estimate_by_contrast
from substrates import Nudge

MOST_EQUATIONS = dict.fromkeys(SYSTEMS, 600) | {"resistors": 1000, "smooth Hopfield": 1000}
"""Of one relaxation: circuits with ideal diodes between free nodes may have more, and what has no solver of its own."""

MOST_TIMES = dict.fromkeys(SYSTEMS, 2.0) | {"quantum spins at a temperature": 2.1}
"""So many times a relaxation may a centred gradient have; density matrices are measured by a function of their root."""


def nudged(net, x, target, beta):
    return net.relax(x, Nudge(SquaredError(), target, beta), key=KEY)


@pytest.mark.parametrize("name", SYSTEMS)
def test_one_program_of_a_few_hundred_equations_serves_all_phases(name):
    net = SYSTEMS[name]()
    x = jnp.linspace(0.3, 0.8, input_size(net))
    shown = eqx.filter_eval_shape(lambda net, x: net.read(net.start(x, KEY), x), net, x)
    target, beta = jnp.zeros(shown.shape, shown.dtype), jnp.asarray(0.01, shown.dtype)
    relaxation = equations(nudged, net, x, target, beta)
    assert equations(lambda net, x: net.relax(x, key=KEY), net, x) <= relaxation <= MOST_EQUATIONS[name]
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (x, target))
    rule = EquilibriumPropagation(0.01, "centered", strict=False)
    assert equations(estimate_by_contrast, rule, net, *batch, KEY) <= MOST_TIMES[name] * relaxation
