"""How large programs are and how often they are compiled, in numbers that no machine changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from equations import equations
from every_system import KEY, SYSTEMS, input_size

from learning import EquilibriumPropagation, SquaredError
from learning.contrastive import estimate_by_contrast
from substrates import Nudge, PredictiveCodingNetwork

MOST_EQUATIONS = dict.fromkeys(SYSTEMS, 600) | dict.fromkeys(("resistors", "recurrent", "paths", "loops"), 1000)
"""Of one relaxation: circuits with ideal diodes between free nodes may have more, what looks whether it is stable, and
paths, whose energy is differentiated twice in one way for any Lagrangian."""

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


def test_programs_of_deep_networks_hardly_grow_with_the_number_of_equal_layers():
    x, beta = jnp.ones(4), jnp.asarray(0.01)
    rule = EquilibriumPropagation(0.01, "centered", strict=False)
    found = {}
    for layers in (5, 20, 60):
        net = PredictiveCodingNetwork.dense([4] * (layers + 1), key=KEY)
        found[layers] = (
            equations(nudged, net, x, x, beta),
            equations(estimate_by_contrast, rule, net, x[None], x[None], KEY),
        )
    # what remains for every layer hands over its arrays; layer by layer a relaxation has 200 for each
    for shallow, deep, deepest, each in zip(*found.values(), (6, 40), strict=True):
        assert deep < 2 * shallow
        assert deepest - deep < 40 * each
