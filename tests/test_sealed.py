"""Equilibrium propagation trains a system in a sealed box: it uses nothing that an experiment could not give."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import EquilibriumPropagation
from substrates import Substrate
from substrates.solvers.solver import Solver, judge, tolerance
from substrates.substrate import relax_batch
from theory_checks import SealedSubstrate, SealError


class Newton(Solver):
    """Twenty Newton steps on the force."""

    def __call__(self, substrate, x, nudge, start, key):
        balance = lambda state: substrate.total_force(state, x, nudge)
        step = lambda _, state: state - jnp.linalg.solve(jax.jacfwd(balance)(state), balance(state))
        state = jax.lax.fori_loop(0, 20, step, start)
        return judge(substrate, state, x, nudge, 20, tolerance(substrate, start, x, nudge))


class Springs(Substrate):
    solver = Newton()
    stiffness: jax.Array
    rest_length: jax.Array

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * (stretch - self.rest_length) ** 2) + 0.25 * jnp.sum(state**4)

    def initial_state(self, x):
        return jnp.zeros(3)

    def read(self, state, x):
        return state[1:]

    def constrained(self):
        return eqx.tree_at(lambda s: s.stiffness, self, jnp.maximum(self.stiffness, 0.05))


TEACHER = Springs(jnp.array([2.0, 1.0, 0.8]), jnp.array([0.4, 0.3, -0.2]))
X = jnp.array([[0.3], [-0.4]])
Y = jax.vmap(TEACHER.read)(relax_batch(TEACHER, X).state, X)
OPEN = Springs(jnp.array([1.0, 2.0, 1.5]), jnp.array([0.1, -0.2, 0.3]))
SEALED = SealedSubstrate(OPEN)
FREE = relax_batch(SEALED, X)


@pytest.mark.parametrize("variant", ["positive", "negative", "centered", "random"])
def test_the_gradient_from_outside_is_the_gradient_of_the_open_system(variant):
    rule = eqx.filter_jit(EquilibriumPropagation(0.1, variant))
    outside, inside = (rule(system, X, Y, key=jax.random.key(0)) for system in (SEALED, OPEN))
    for found, wanted in zip(jax.tree.leaves(outside.gradient), jax.tree.leaves(inside.gradient), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(outside.output, inside.output, rtol=1e-12)


def test_it_trains_in_the_box():
    rule, optimiser = EquilibriumPropagation(0.1), optax.sgd(0.3, momentum=0.9)

    @eqx.filter_jit
    def step(system, memory):
        estimate = rule(system, X, Y)
        updates, memory = optimiser.update(estimate.gradient, memory)
        return eqx.apply_updates(system, updates).constrained(), memory, estimate.cost

    system, memory, costs = SEALED, optimiser.init(eqx.filter(SEALED, eqx.is_inexact_array)), []
    for _ in range(100):
        system, memory, cost = step(system, memory)
        costs.append(float(cost))
    assert costs[-1] < 0.05 * costs[0]
    assert isinstance(system, SealedSubstrate)


@pytest.mark.parametrize(
    "look",
    [
        lambda s, state: s.energy(state, X[0]),
        lambda s, state: s.force(state, X[0]),
        lambda s, state: s.total_energy(state, X[0]),
        lambda s, state: s.total_force(state, X[0]),
        lambda s, state: s.stationarity(state, X[0]),
        lambda s, state: s.residual(state, X[0]),
        lambda s, state: s.force_scale(state, X[0]),
        lambda s, state: s.initial_state(X[0]),
        lambda s, state: s.bounds(X[0]),
        lambda s, state: s.conservative,
        lambda s, state: state.shape,
        lambda s, state: state + state,
        lambda s, state: state - state,
        lambda s, state: 2.0 * state,
        lambda s, state: state[0],
        lambda s, state: list(state),
        lambda s, state: s.read(jnp.zeros(3), X[0]),
    ],
)
def test_looking_inside_breaks_the_seal(look):
    with pytest.raises(SealError):
        look(SEALED, FREE.state)


def test_leaves_of_a_state_tell_nothing_and_have_no_derivative():
    assert FREE.energy is None
    assert all(jnp.issubdtype(leaf.dtype, jnp.unsignedinteger) for leaf in jax.tree.leaves(FREE.state))
    moved = jax.tree.map(lambda leaf: leaf + leaf, FREE.state)
    assert not np.allclose(jax.vmap(SEALED.read)(moved, X), 2 * jax.vmap(SEALED.read)(FREE.state, X))
