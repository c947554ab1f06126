"""Nudges that leave the basin of the free state, against double wells whose barrier is known."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import Array, Float

from learning import EquilibriumPropagation, SquaredError, basin_jumps
from substrates import HopfieldNetwork, Nudge, OscillatorNetwork, Pin, ResistorNetwork, Substrate
from substrates.substrate import Solver, relax_batch


class DoubleWell(Substrate):
    """E = k/4 (s^2/a^2 - 1)^2 - k x s/a: wells near -a and a, tilted by x, and between them the barrier."""

    stiffness: Float[Array, ""]
    half: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def energy(self, state, x):
        place = state[0] / self.half
        return self.stiffness * ((place**2 - 1) ** 2 / 4 - x[0] * place)

    def initial_state(self, x):
        return self.half[None]

    def read(self, state, x):
        return state

    def barrier(self, x):
        """The middle root of s^3 - s - x, with |x| below 2/sqrt(27), in units of a."""
        return np.sort(np.roots([1.0, 0.0, -1.0, -x]).real)[1]


class OtherWell(Solver):
    """Starts a free phase at -a, as annealing starts where it likes."""

    def __call__(self, substrate, x, nudge, start, key):
        start = start if nudge is not None else -substrate.half[None]
        return Substrate.solver(substrate, x, nudge, start, key)


tilts = st.floats(-0.3, 0.3)


@given(tilt=tilts, beta=st.floats(0.01, 20.0), target=st.floats(-3, 3), half=st.sampled_from([1e-9, 1.0, 1e6]))
def test_a_state_has_jumped_where_it_lies_beyond_the_barrier(tilt, beta, target, half):
    well = DoubleWell(jnp.asarray(1.0), half)
    x, y = jnp.full((1, 1), tilt), jnp.full((1, 1), target * half)
    free = relax_batch(well, x)
    nudged = relax_batch(well, x, Nudge(SquaredError(), y, beta / half**2), free.state)
    assert free.converged[0]
    place = float(nudged.state[0, 0]) / half
    if not nudged.converged[0] or abs(place - well.barrier(tilt)) < 0.05:
        return
    assert bool(basin_jumps(well, x, free, nudged)[0]) == (place < well.barrier(tilt))


@given(seed=st.integers(0, 2**16), beta=st.floats(1e-3, 1.0))
def test_a_single_minimum_is_never_left(seed, beta):
    """Diodes and resistors have one state, however strong the nudge; float32 rounds it to 1e-7."""
    net = ResistorNetwork.layered((4, 6, 3), key=jax.random.key(seed), dtype=jnp.float32)
    assume(jnp.all(jnp.sum(net.conductance[-1], axis=0) > 0))  # no output floats
    x, y = (jax.random.uniform(jax.random.key(seed + k), (5, size)) for k, size in ((1, 4), (2, 3)))
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    found = EquilibriumPropagation(beta, "positive")(net, x, y)
    for nudged in found.equilibria[1:]:
        assert not basin_jumps(net, x, found.equilibria[0], nudged).any()


def test_a_nudge_that_throws_the_phase_over_the_ridge_is_found_out():
    """One phase in a double well of the second harmonic, its wells at 0 and pi, pulled from 0 towards pi."""
    well = OscillatorNetwork.from_edges([], 1, coupling=1.0, outputs=[0], second_harmonic=1.0)
    xs, targets = jnp.zeros((2, 0)), jnp.full((2, 1), np.pi)
    free = relax_batch(well, xs, starts=jnp.array([[0.1], [0.1]]))
    np.testing.assert_allclose(free.state, 0, atol=1e-9)
    nudged = relax_batch(well, xs, Nudge(SquaredError(), targets, jnp.array([0.2, 2.0])), free.state)
    assert jnp.all(nudged.converged)
    np.testing.assert_array_equal(basin_jumps(well, xs, free, nudged), [False, True])


class Restarted(DoubleWell):
    """Its free phase starts in the other well."""

    solver: ClassVar[Solver] = OtherWell()


def test_a_solver_with_starts_of_its_own_for_free_phases_does_not_hide_a_jump():
    well, x = Restarted(jnp.asarray(1.0)), jnp.zeros((2, 1))
    free = relax_batch(well, x)
    np.testing.assert_allclose(free.state, -1)
    nudged = relax_batch(well, x, Nudge(SquaredError(), jnp.array([[-1.2], [3.0]]), 5.0), free.state)
    np.testing.assert_array_equal(basin_jumps(well, x, free, nudged), [False, True])


def test_outputs_that_were_held_are_let_go():
    well, x = DoubleWell(jnp.asarray(1.0)), jnp.zeros((2, 1))
    free = relax_batch(well, x)
    held = relax_batch(well, x, Pin(jnp.array([[0.5], [-0.5]])), free.state)
    np.testing.assert_array_equal(basin_jumps(well, x, free, held), [False, True])


def test_a_nudge_that_moves_nothing_has_not_left():
    """The unit is clipped at 1, and pulled further up."""
    net = HopfieldNetwork.layered((2, 3, 1), key=jax.random.key(0))
    net = eqx.tree_at(lambda net: net.bias[-1], net, jnp.full(1, 9.0))
    x = jnp.zeros((1, 2))
    found = EquilibriumPropagation(0.1)(net, x, jnp.full((1, 1), 5.0))
    assert not basin_jumps(net, x, found.equilibria[0], found.equilibria[1]).any()


def test_compiled_it_says_the_same():
    well, x = DoubleWell(jnp.asarray(1.0)), jnp.zeros((2, 1))
    free = relax_batch(well, x)
    nudged = relax_batch(well, x, Nudge(SquaredError(), jnp.array([[1.2], [-3.0]]), 5.0), free.state)
    compiled = eqx.filter_jit(basin_jumps)
    np.testing.assert_array_equal(compiled(well, x, free, nudged), [False, True])


def test_what_does_not_fit_is_named():
    well, x = DoubleWell(jnp.asarray(1.0)), jnp.zeros((2, 1))
    free = relax_batch(well, x)
    with pytest.raises(ValueError, match="nudged"):
        basin_jumps(well, x, free, relax_batch(well, x[:1]))
    for wrong in ((free, free.state), (free.state, free), (free, (free, free)), (x, free)):
        with pytest.raises(TypeError, match="wanted the Equilibrium of a batch"):
            basin_jumps(well, x, *wrong)
    for part in (0.0, -1.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="part"):
            basin_jumps(well, x, free, free, part)
