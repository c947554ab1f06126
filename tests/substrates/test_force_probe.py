"""Forces of a system read by springs: errors fall as one over their stiffness, and the system learns to exert them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import EquilibriumPropagation, fit
from substrates import ForceProbe, HopfieldNetwork, Substrate


class Landscape(Substrate):
    """E = s'Ks/2 - b's + a sum_i s_i^4/4 + c sum_i sin(s_i + s_(i+1))."""

    K: jax.Array
    b: jax.Array
    a: jax.Array
    c: jax.Array

    def energy(self, state, x):
        waves = jnp.sum(jnp.sin(state + jnp.roll(state, 1)))
        return state @ self.K @ state / 2 - self.b @ state + self.a * jnp.sum(state**4) / 4 + self.c * waves

    def initial_state(self, x):
        return jnp.zeros(3)

    def read(self, state, x):
        return state


def landscape(seed):
    rng = np.random.default_rng(seed)
    K = rng.normal(size=(3, 3))
    return Landscape(*map(jnp.asarray, (K + K.T, rng.normal(size=3), 0.3, 0.5)))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


POINTS = jnp.asarray(np.random.default_rng(7).normal(size=(4, 3)))
WANTED = jnp.asarray(np.random.default_rng(8).normal(size=(4, 3)))


def test_springs_show_the_force_and_the_contrast_its_gradient_up_to_one_over_their_stiffness():
    inner = landscape(0)

    def loss(inner):
        forces = jax.vmap(lambda s: -jax.grad(inner.energy)(s, None))(POINTS)
        return jnp.mean(jnp.sum((forces - WANTED) ** 2, axis=1)) / 2

    exact, forces = jax.grad(loss)(inner), jax.vmap(lambda s: inner.force(s, None))(POINTS)
    shown, gradients = [], []
    for k in (100.0, 1000.0, 10000.0):
        probe = ForceProbe(inner, jnp.zeros(0), k)
        estimate = EquilibriumPropagation(jnp.asarray(1e-3 / k))(probe, POINTS, WANTED)
        shown.append(np.abs(estimate.output - forces).max() / np.abs(forces).max())
        gradients.append(np.linalg.norm(flat(estimate.gradient.inner) - flat(exact)) / np.linalg.norm(flat(exact)))
    for errors in (shown, gradients):
        np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.2)
        assert errors[-1] < 2e-3


def test_a_system_learns_the_forces_of_another():
    teacher, student = landscape(1), landscape(2)
    forces = jax.vmap(lambda s: teacher.force(s, None))(POINTS)
    probe = ForceProbe(student, jnp.zeros(0), 100.0)
    run = fit(
        probe,
        EquilibriumPropagation(1e-4),
        (POINTS, forces),
        optimiser=optax.adam(0.05),
        epochs=150,
        batch_size=4,
        key=jax.random.key(0),
        progress=False,
    )
    assert run.history["cost"][-1] < 1e-2 * run.history["cost"][0]
    assert run.substrate.stiffness == 100


def test_what_has_no_force_to_read_is_refused():
    with pytest.raises(ValueError, match="stiffness: wanted a positive number, got -1"):
        ForceProbe(landscape(0), jnp.zeros(0), -1)
    clipped = HopfieldNetwork.for_task(2, 2, sizes=(3,), key=jax.random.key(0))
    with pytest.raises(ValueError, match="inner: wanted a system with an energy over states without bounds"):
        ForceProbe(clipped, jnp.zeros(2), 10.0)


def test_only_the_inner_system_is_constrained():
    class Kept(Landscape):
        def constrained(self):
            return eqx.tree_at(lambda s: s.a, self, jnp.maximum(self.a, 1.0))

    inner = landscape(0)
    probe = ForceProbe(Kept(inner.K, inner.b, inner.a, inner.c), jnp.zeros(0), 10.0)
    assert probe.constrained().inner.a == 1.0
    assert probe.input_size == 3
