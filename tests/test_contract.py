"""The contract carries every kind of system without change: each here is a few lines, held against an oracle."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from learning import CrossEntropy, EquilibriumPropagation, SquaredError
from learning.reference import ImplicitGradient
from learning.rule import Moved, Mover
from substrates import Equilibrium, Nudge, Pin, Status, Substrate, fixed
from substrates.readout import LinearReadout
from substrates.solvers.generic import DescendThenPolish, Newton
from substrates.solvers.solver import Solver, judge, tolerance
from substrates.substrate import relax_batch

first_output = lambda output, target: output[0]
run = eqx.filter_jit(lambda rule, *arguments: rule(*arguments))


class Steps(Solver):
    """Thirty Newton steps on the force."""

    def __call__(self, substrate, x, nudge, start, key):
        flat, unravel = ravel_pytree(start)
        balance = lambda state: ravel_pytree(substrate.total_force(unravel(state), x, nudge))[0]
        step = lambda _, state: state - jnp.linalg.solve(jax.jacfwd(balance)(state), balance(state))
        state = unravel(jax.lax.fori_loop(0, 30, step, flat))
        return judge(substrate, state, x, nudge, 30, tolerance(substrate, start, x, nudge))


def slope(function, at, step=1e-5):
    """The gradient of a scalar function of an array, by central differences."""
    flat = np.asarray(at, dtype=float).ravel()
    shift = lambda k, h: jnp.asarray((flat + h * (np.arange(flat.size) == k)).reshape(np.shape(at)))
    return np.array([(function(shift(k, step)) - function(shift(k, -step))) / (2 * step) for k in range(flat.size)])


# discrete spins


CONFIGURATIONS = jnp.array(list(itertools.product([-1.0, 1.0], repeat=5)))


class Spins(Substrate):
    """Five spins that find their ground state by enumeration."""

    coupling: jax.Array
    field: jax.Array
    contrast_points = 0

    def energy(self, state, x):
        return -0.5 * state @ jnp.triu(self.coupling, 1) @ state * 2 - (self.field + x) @ state

    def initial_state(self, x):
        return jnp.ones(5)

    def read(self, state, x):
        return state[3:]

    def residual(self, state, x, nudge=None):
        flipped = state[None] * (1 - 2 * jnp.eye(5))
        energies = jax.vmap(lambda s: self.total_energy(s, x, nudge))(flipped)
        return jnp.maximum(self.total_energy(state, x, nudge) - jnp.min(energies), 0.0)

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        energies = jax.vmap(lambda s: self.total_energy(s, x, nudge))(CONFIGURATIONS)
        return judge(self, CONFIGURATIONS[jnp.argmin(energies)], x, nudge, 32, jnp.asarray(1e-12))


def least_energy(spins, x, y, beta):
    """The least total energy of each example, in numpy, by enumeration."""
    states = np.array(list(itertools.product([-1.0, 1.0], repeat=5)))
    pairs = np.einsum("si,ij,sj->s", states, np.triu(spins.coupling, 1), states)
    cost = 0.5 * np.sum((states[:, None, 3:] - np.asarray(y)) ** 2, axis=2)
    return np.min(-pairs[:, None] - states @ (np.asarray(spins.field) + np.asarray(x)).T + beta * cost, axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_discrete_spins(seed):
    keys = jax.random.split(jax.random.key(seed), 4)
    spins = Spins(jax.random.normal(keys[0], (5, 5)), jax.random.normal(keys[1], (5,)))
    x, y = jax.random.normal(keys[2], (6, 5)), jnp.sign(jax.random.normal(keys[3], (6, 2)))
    beta = 0.7
    estimate = EquilibriumPropagation(beta, "positive")(spins, x, y)
    energies = {b: least_energy(spins, x, y, b) for b in (-beta, 0.0, beta)}
    np.testing.assert_allclose(estimate.equilibria[1].energy, energies[beta], rtol=1e-12)
    lower, upper = (energies[beta] - energies[0.0]) / beta, (energies[0.0] - energies[-beta]) / beta
    cost = np.asarray(jax.vmap(SquaredError())(estimate.output, y))
    assert np.all(lower <= cost + 1e-12)
    assert np.all(cost <= upper + 1e-12)

    def surrogate(field):
        moved = eqx.tree_at(lambda s: s.field, spins, field)
        return np.mean(least_energy(moved, x, y, beta) - least_energy(moved, x, y, 0.0)) / beta

    np.testing.assert_allclose(estimate.gradient.field, slope(surrogate, spins.field, 1e-7), atol=1e-6)


# phases


class Oscillators(Substrate):
    """One phase that the fields of two fixed oscillators align: E = -sum_k h_k cos(phi - psi_k)."""

    field: jax.Array

    def energy(self, state, x):
        return -jnp.sum(self.field * jnp.cos(state - x))

    def initial_state(self, x):
        return jnp.zeros(1)

    def read(self, state, x):
        return state


def test_phases_align_with_the_resultant_and_do_not_wind():
    system, psi, target = Oscillators(jnp.array([1.0, 0.6])), jnp.array([[0.4, 1.9]]), jnp.array([[1.2]])
    resultant = np.sum(np.asarray(system.field) * np.exp(1j * np.asarray(psi)))
    phi, length = np.angle(resultant), np.abs(resultant)
    estimate = run(EquilibriumPropagation(1e-4), system, psi, target)
    np.testing.assert_allclose(estimate.output, [[phi]], rtol=1e-12)
    closed = (phi - target[0]) * jnp.sin(psi[0] - phi) / length
    np.testing.assert_allclose(estimate.gradient.field, closed, rtol=1e-7)
    wound = system.relax(psi[0], Nudge(SquaredError(), target[0] + 2 * jnp.pi, 0.1), jnp.array([2 * jnp.pi + phi]))
    assert wound.converged
    assert abs(float(wound.state[0] - 2 * jnp.pi - phi)) < 0.5


# positions in two dimensions


class Spring(Substrate):
    """A node on one spring from the origin, pulled by a force x."""

    stiffness: jax.Array
    rest_length: jax.Array
    solver = Steps()
    anchor: jax.Array = fixed(default_factory=lambda: jnp.zeros(2))

    def energy(self, state, x):
        length = jnp.linalg.norm(state[0] - self.anchor)
        return 0.5 * self.stiffness * (length - self.rest_length) ** 2 - x @ state[0]

    def initial_state(self, x):
        return self.anchor[None] + jnp.array([[0.3, 0.4]])

    def read(self, state, x):
        return state[0]


def test_positions_in_two_dimensions():
    spring, force, target = Spring(jnp.array(2.0), jnp.array(1.0)), jnp.array([0.6, -0.8]), jnp.array([1.0, -0.5])
    estimate = run(EquilibriumPropagation(1e-4), spring, force[None], target[None])
    length = 1.0 + 1.0 / 2.0
    np.testing.assert_allclose(estimate.output[0], length * force, rtol=1e-10)
    pull = (length * force - target) @ force
    np.testing.assert_allclose(estimate.gradient.rest_length, pull, rtol=1e-7)
    np.testing.assert_allclose(estimate.gradient.stiffness, -pull / 4.0, rtol=1e-7)
    assert estimate.gradient.anchor is None


# layers and convolutions


class Layers(Substrate):
    """A Hopfield network of two layers: a tuple state, bounded activities in the hidden one."""

    weights: tuple

    def energy(self, state, x):
        hidden, output = state
        own = 0.5 * (jnp.sum(hidden**2) + jnp.sum(output**2))
        return own - x @ self.weights[0] @ hidden - hidden @ self.weights[1] @ output

    def initial_state(self, x):
        return jnp.full(4, 0.5), jnp.zeros(2)

    def bounds(self, x):
        return (jnp.zeros(4), jnp.full(2, -jnp.inf)), (jnp.ones(4), jnp.full(2, jnp.inf))

    def read(self, state, x):
        return state[1]


class Convolution(Substrate):
    """Feature maps (channels, height, width) that settle under a kernel and a cubic saturation."""

    kernel: jax.Array
    solver = Steps()

    def energy(self, state, x):
        drive = jax.lax.conv(x[None], self.kernel, (1, 1), "SAME")[0]
        return jnp.sum(0.5 * state**2 + 0.25 * state**4 - drive * state)

    def initial_state(self, x):
        return jnp.zeros((2, *x.shape[1:]))

    def read(self, state, x):
        return jnp.mean(state, axis=(1, 2))


def assert_same_gradient(found, wanted, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.max(jnp.abs(b))))


def test_a_tuple_of_layers_with_bounds():
    keys = jax.random.split(jax.random.key(3), 3)
    weights = (jax.random.normal(keys[0], (3, 4)), 0.4 * jax.random.normal(keys[1], (4, 2)))
    x, y = jax.random.normal(keys[2], (3, 3)), jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, -0.5]])
    estimate = run(EquilibriumPropagation(1e-4), Layers(weights), x, y)
    hidden = estimate.equilibria[0].state[0]
    assert 0 < int(jnp.sum((hidden == 0) | (hidden == 1))) < hidden.size
    assert_same_gradient(estimate.gradient, run(ImplicitGradient(), Layers(weights), x, y).gradient, 1e-6)


def test_feature_maps():
    keys = jax.random.split(jax.random.key(4), 2)
    system, x = Convolution(jax.random.normal(keys[0], (2, 1, 3, 3))), jax.random.normal(keys[1], (2, 1, 4, 4))
    y = jnp.array([[0.3, -0.2], [0.1, 0.4]])
    found = run(EquilibriumPropagation(1e-3), system, x, y).gradient

    def loss(kernel):
        drive = jax.vmap(lambda x: jax.lax.conv(x[None], kernel, (1, 1), "SAME")[0])(x)
        root = jax.lax.fori_loop(0, 30, lambda _, s: s - (s + s**3 - drive) / (1 + 3 * s**2), drive)
        return jnp.mean(jax.vmap(SquaredError())(jnp.mean(root, axis=(2, 3)), y))

    np.testing.assert_allclose(found.kernel.ravel(), slope(loss, system.kernel), atol=1e-6)


# an ensemble at a temperature


class Ensemble(Substrate):
    """Three spins at a temperature: the state is the distribution over their configurations, E its free energy."""

    coupling: jax.Array
    temperature: jax.Array = fixed(default_factory=lambda: jnp.array(0.8))

    def configurations(self):
        return jnp.array(list(itertools.product([-1.0, 1.0], repeat=3)))

    def levels(self, x):
        spins = self.configurations()
        return -jnp.sum(self.coupling[None] * spins * jnp.roll(spins, 1, axis=1), axis=1) - spins @ x

    def energy(self, state, x):
        share = state / jnp.sum(state)
        return share @ (self.levels(x) + self.temperature * jnp.log(share))

    def initial_state(self, x):
        return jnp.full(8, 1 / 8)

    def read(self, state, x):
        return self.configurations().T @ (state / jnp.sum(state))

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        levels = self.levels(x)
        if nudge is not None:
            levels = levels - self.configurations() @ nudge.pull(self.read(self.initial_state(x), x))
        state = jax.nn.softmax(-levels / self.temperature)
        return judge(self, state, x, nudge, 1, jnp.asarray(1e-10))


def test_an_ensemble_at_a_temperature_has_the_covariance_gradient():
    system, x = Ensemble(jnp.array([0.5, -0.8, 0.3])), jnp.array([[0.2, 0.4, -0.3]])
    linear = lambda output, target: output @ target
    target = jnp.array([[1.0, -2.0, 0.5]])
    found = run(EquilibriumPropagation(1e-4, cost=linear), system, x, target).gradient.coupling
    spins = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    pairs = spins * np.roll(spins, 1, axis=1)
    weight = np.exp(-(-pairs @ np.asarray(system.coupling) - spins @ np.asarray(x[0])) / 0.8)
    weight /= weight.sum()
    cost, conjugate = spins @ np.asarray(target[0]), -pairs
    covariance = (weight * cost) @ conjugate - (weight @ cost) * (weight @ conjugate)
    np.testing.assert_allclose(found, -covariance / 0.8, rtol=1e-6)


# a quantum ground state


PAULI_X, PAULI_Z, IDENTITY = np.array([[0.0, 1], [1, 0]]), np.diag([1.0, -1]), np.eye(2)
ZZ, Z1, Z2 = np.kron(PAULI_Z, PAULI_Z), np.kron(PAULI_Z, IDENTITY), np.kron(IDENTITY, PAULI_Z)
X12 = np.kron(PAULI_X, IDENTITY) + np.kron(IDENTITY, PAULI_X)


class TwoSpins(Substrate):
    """Two spins in a transverse field: the state is a ground vector, E the mean energy."""

    coupling: jax.Array
    transverse: jax.Array

    def hamiltonian(self, x):
        return -self.coupling * ZZ - x[0] * Z1 - 0.3 * Z2 - self.transverse * X12

    def energy(self, state, x):
        return state @ self.hamiltonian(x) @ state / (state @ state)

    def initial_state(self, x):
        return jnp.full(4, 0.5)

    def read(self, state, x):
        return (state @ Z2 @ state / (state @ state))[None]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_quantum_ground_state(sign):
    system, x = TwoSpins(jnp.array(0.7), jnp.array(0.5)), jnp.array([[0.4]])
    levels, vectors = np.linalg.eigh(np.asarray(system.hamiltonian(x[0])))
    ground = vectors[:, 0] * np.sign(vectors[0, 0]) * sign
    free = system.relax(x[0], start=jnp.asarray(sign * jnp.full(4, 0.5)))
    np.testing.assert_allclose(free.energy, levels[0], rtol=1e-12)
    np.testing.assert_allclose(free.state / jnp.linalg.norm(free.state), ground, atol=1e-9)
    nudged = system.relax(
        x[0], Nudge(SquaredError(), jnp.array([0.0]), 0.2, about=system.read(free.state, x[0])), free.state
    )
    assert float(nudged.state @ free.state) > 0
    found = run(EquilibriumPropagation(1e-3, cost=first_output), system, x, jnp.zeros((1, 1))).gradient
    perturbed = lambda operator: (
        -2
        * sum(
            (ground @ operator @ vectors[:, n]) * (vectors[:, n] @ Z2 @ ground) / (levels[n] - levels[0])
            for n in (1, 2, 3)
        )
    )
    np.testing.assert_allclose([found.coupling, found.transverse], [perturbed(-ZZ), perturbed(-X12)], rtol=1e-5)


# a vector field without an energy


class Neurons(Substrate):
    coupling: jax.Array
    solver = Steps()

    def force(self, state, x, nudge=None):
        return -state + jnp.tanh(self.coupling @ state + x)

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state[:2]


def test_a_vector_field_without_an_energy():
    keys = jax.random.split(jax.random.key(7), 3)
    system = Neurons(0.5 * jax.random.normal(keys[0], (3, 3)))
    x, y = jax.random.normal(keys[1], (1, 3)), jax.random.normal(keys[2], (1, 2))
    estimate = run(EquilibriumPropagation(1e-4), system, x, y)
    state = np.asarray(estimate.equilibria[0].state[0])
    gain = 1 - state**2
    jacobian = -np.eye(3) + gain[:, None] * np.asarray(system.coupling)
    pull = np.append(state[:2] - np.asarray(y[0]), 0.0)
    vector_field = -np.outer(gain * np.linalg.solve(jacobian, pull), state)
    true = -np.outer(gain * np.linalg.solve(jacobian.T, pull), state)
    np.testing.assert_allclose(estimate.gradient.coupling, vector_field, atol=1e-7)
    np.testing.assert_allclose(run(ImplicitGradient(), system, x, y).gradient.coupling, true, atol=1e-12)
    assert np.max(np.abs(vector_field - true)) > 1e-3
    with pytest.raises(TypeError, match="use contrast, which does"):
        system.measure(estimate.equilibria[0].state, x)
    assert estimate.equilibria[0].energy is None


# a trajectory


class Oscillation(Substrate):
    """A mass on a spring between two fixed end points: the state is its path, E the discretised action, a saddle."""

    mass: jax.Array
    stiffness: jax.Array
    solver = Newton()
    step = 0.2

    def energy(self, state, x):
        path = jnp.concatenate([x[:1], state, x[1:]])
        kinetic = 0.5 * self.mass * jnp.sum(jnp.diff(path) ** 2) / self.step
        return kinetic - self.step * 0.5 * self.stiffness * jnp.sum(state**2)

    def initial_state(self, x):
        return jnp.linspace(x[0], x[1], 26)[1:-1]

    def read(self, state, x):
        return state[11:13]


def test_a_trajectory_between_fixed_ends():
    system, ends, target = (
        Oscillation(jnp.array(1.3), jnp.array(2.0)),
        jnp.array([[0.7, -0.4]]),
        jnp.array([[0.2, 0.1]]),
    )
    hessian = jax.hessian(lambda s: system.energy(s, ends[0]))(system.initial_state(ends[0]))
    assert jnp.linalg.eigvalsh(hessian)[0] < 0 < jnp.linalg.eigvalsh(hessian)[-1]

    def path(parameters):
        angle = jnp.arccos(1 - parameters[1] * system.step**2 / (2 * parameters[0]))
        t = jnp.arange(1.0, 25.0)
        return (ends[0, 0] * jnp.sin((25 - t) * angle) + ends[0, 1] * jnp.sin(t * angle)) / jnp.sin(25 * angle)

    at = jnp.array([1.3, 2.0])
    estimate = run(EquilibriumPropagation(1e-4), system, ends, target)
    np.testing.assert_allclose(estimate.equilibria[0].state[0], path(at), atol=1e-10)
    closed = jax.grad(lambda p: SquaredError()(path(p)[11:13], target[0]))(at)
    np.testing.assert_allclose([estimate.gradient.mass, estimate.gradient.stiffness], closed, rtol=1e-5)


# a complex nudge


class Wells(Substrate):
    """An analytic energy, for nudges with a complex strength."""

    stiffness: jax.Array
    solver = Steps()

    def energy(self, state, x):
        return jnp.sum(0.5 * self.stiffness * state**2 + 0.1 * state**4 - x * state)

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state


class AnalyticWells(Wells):
    solver = DescendThenPolish()


def holomorphic_estimate(system, x, y, cost, radius, points):
    free = relax_batch(system, x)
    total = 0.0
    for k in range(points):
        phase = jnp.asarray(np.exp(2j * np.pi * k / points))
        nudge = Nudge(cost, y, radius * phase)
        found = relax_batch(system, x, nudge, free.state)
        assert bool(jnp.all(found.converged))
        total = total + np.asarray(system.measure(found.state, x, nudge).stiffness / phase)
    return total / (points * radius)


def test_a_complex_nudge_continues_the_system_analytically():
    system, x, y = AnalyticWells(jnp.array([1.0, 1.5])), jnp.array([[0.8, -0.5]]), jnp.array([[0.0, 1.0]])
    estimate = lambda radius, points: holomorphic_estimate(system, x, y, SquaredError(), radius, points)
    exact = np.asarray(ImplicitGradient()(system, x, y).gradient.stiffness)
    errors = [float(np.linalg.norm(estimate(r, 4) - exact)) for r in (0.4, 0.2)]
    assert errors[0] / errors[1] == pytest.approx(2**4, rel=0.15)
    centred = EquilibriumPropagation(0.2)(system, x, y).gradient.stiffness
    np.testing.assert_allclose(estimate(0.2, 2), centred, rtol=1e-9)


# a system on the host


class OnTheHost(Substrate):
    """A chain of springs whose equilibrium NumPy finds, outside JAX."""

    stiffness: jax.Array

    def energy(self, state, x):
        return 0.5 * jnp.sum(self.stiffness * jnp.diff(jnp.concatenate([x, state])) ** 2) + 0.5 * jnp.sum(state**2)

    def initial_state(self, x):
        return jnp.zeros(3)

    def read(self, state, x):
        return state[2:]

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        beta, target = (0.0, jnp.zeros(1)) if nudge is None else (nudge.beta, nudge.target)
        state = jax.pure_callback(
            settle_on_host,
            jax.ShapeDtypeStruct((3,), x.dtype),
            self.stiffness,
            x,
            beta,
            target,
            vmap_method="sequential",
        )
        return judge(self, state, x, nudge, 1, tolerance(self, state, x, nudge))


def settle_on_host(stiffness, x, beta, target):
    k = np.append(np.asarray(stiffness), 0.0)
    matrix = np.diag(k[:3] + k[1:] + 1) - np.diag(k[1:3], 1) - np.diag(k[1:3], -1)
    matrix[2, 2] += beta
    return np.linalg.solve(matrix, np.array([k[0] * x[0], 0, beta * target[0]]))


def test_a_system_on_the_host_trains_under_jit_vmap_and_scan():
    system, x, y = OnTheHost(jnp.array([1.0, 2.0, 0.5])), jnp.array([[1.0], [-0.5]]), jnp.array([[0.5], [-0.3]])
    rule = EquilibriumPropagation(1e-3)
    exact = run(ImplicitGradient(), system, x, y).gradient.stiffness
    np.testing.assert_allclose(run(rule, system, x, y).gradient.stiffness, exact, rtol=1e-5)

    @jax.jit
    def train(stiffness):
        def step(stiffness, _):
            estimate = rule(OnTheHost(stiffness), x, y)
            return stiffness - 20.0 * estimate.gradient.stiffness, estimate.cost

        return jax.lax.scan(step, stiffness, length=20)[1]

    costs = train(system.stiffness)
    assert costs[-1] < 0.5 * costs[0]


# weights outside


def test_read_out_weights_learn_from_the_same_contrast():
    keys = jax.random.split(jax.random.key(5), 2)
    inner = Wells(jnp.array([1.0, 1.5, 0.7]))
    system = LinearReadout(inner, jax.random.normal(keys[0], (4, 3)))
    x, y = jax.random.normal(keys[1], (3, 3)), jnp.eye(4)[jnp.array([0, 2, 3])]
    found = run(EquilibriumPropagation(1e-3, cost=CrossEntropy()), system, x, y)
    states = jnp.linalg.norm(found.equilibria[0].state, axis=1)
    assert jnp.all(states > 0)

    def loss(weight, stiffness):
        root = jax.lax.fori_loop(
            0,
            40,
            lambda _, s: s - (stiffness[None] * s + 0.4 * s**3 - x) / (stiffness[None] + 1.2 * s**2),
            jnp.zeros_like(x),
        )
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(root @ weight.T), axis=1))

    wanted = jax.jacfwd(loss, argnums=(0, 1))(system.weight, inner.stiffness)
    np.testing.assert_allclose(found.gradient.weight, wanted[0], atol=1e-6)
    np.testing.assert_allclose(found.gradient.inner.stiffness, wanted[1], atol=1e-6)
    exact = run(ImplicitGradient(CrossEntropy()), system, x, y).gradient
    np.testing.assert_allclose(exact.weight, wanted[0], atol=1e-12)
    np.testing.assert_allclose(exact.inner.stiffness, wanted[1], atol=1e-12)


def test_a_read_out_is_felt_through_a_tangent_nudge_too():
    system = LinearReadout(Wells(jnp.array([1.0, 1.5])), jnp.array([[1.0, -1.0], [0.5, 2.0]]))
    x, y = jnp.array([[0.8, -0.5], [0.1, 0.9]]), jnp.array([[0.0, 1.0], [1.0, 0.0]])
    free = relax_batch(system, x)
    nudge = lambda sign: Nudge(SquaredError(), y, sign * 1e-3, about=jax.vmap(system.read)(free.state, x))
    plus, minus = (relax_batch(system, x, nudge(sign), free.state) for sign in (1.0, -1.0))
    contrast = system.contrast(plus.state, minus.state, x, nudge(1.0), nudge(-1.0))
    exact = ImplicitGradient()(system, x, y).gradient
    np.testing.assert_allclose(contrast.weight / 2e-3, exact.weight, rtol=1e-5)
    np.testing.assert_allclose(contrast.inner.stiffness / 2e-3, exact.inner.stiffness, rtol=1e-5)


# movers


class Downhill(Mover):
    """Moves the parameters itself, against an estimated gradient."""

    rate: float

    def step(self, system, x, y, *, key=None):
        found = EquilibriumPropagation(0.01)(system, x, y, key=key)
        moved = eqx.apply_updates(system, jax.tree.map(lambda g: -self.rate * g, found.gradient)).constrained()
        return Moved(moved, found.cost, found.output)


def test_a_mover_returns_the_system_moved():
    system, x, y = Wells(jnp.array([1.0, 1.5])), jnp.array([[0.8, -0.5]]), jnp.array([[0.6, -0.2]])
    loss = lambda system: float(SquaredError()(system.relax(x[0]).state, y[0]))
    step = eqx.filter_jit(Downhill(0.5).step)
    moved = step(step(system, x, y).system, x, y).system
    assert type(moved) is Wells
    assert loss(moved) < 0.9 * loss(system)


# outputs that are held


class Displaced(AnalyticWells):
    """The same wells, read along one direction."""

    def read(self, state, x):
        return (state[:1] + 2 * state[1:]) + 0.0 * x[:1]


class Shares(AnalyticWells):
    """The same wells in a unit of energy, read as two shares, which add up to 1."""

    unit: jax.Array

    def energy(self, state, x):
        return self.unit * super().energy(state, x)

    def read(self, state, x):
        first = jax.nn.sigmoid(state[0] + 2 * state[1])
        return jnp.stack([first, 1 - first])


class Squared(AnalyticWells):
    """The same wells, read as a nonlinear function of the state."""

    def read(self, state, x):
        return jnp.sum(state**2)[None] + state[:1]


@pytest.mark.parametrize("kind", [Displaced, Squared])
def test_a_pin_holds_the_outputs_exactly_and_gives_the_contrastive_pair(kind):
    system, x, target = kind(jnp.array([1.0, 1.5])), jnp.array([0.8, -0.5]), jnp.array([0.9])
    held = eqx.filter_jit(lambda s, x, pin: s.relax(x, pin))(system, x, Pin(target))
    assert held.converged
    np.testing.assert_allclose(system.read(held.state, x), target, atol=1e-12)
    tangent = jnp.linalg.svd(jax.jacfwd(lambda s: system.read(s, x))(held.state))[2][1]
    assert abs(float(system.force(held.state, x) @ tangent)) < 1e-12
    free = system.relax(x)
    contrast = system.contrast(held.state[None], free.state[None], x[None]).stiffness

    def gap(stiffness):
        moved = kind(stiffness)
        return float(moved.relax(x, Pin(target)).energy - moved.relax(x).energy)

    np.testing.assert_allclose(contrast, (held.state**2 - free.state**2) / 2, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(contrast, slope(gap, system.stiffness), rtol=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1e-20])
def test_a_pin_holds_outputs_of_which_one_follows_from_the_others(unit):
    """Such targets are reached where they agree, and missed with a word where they do not."""
    alone, x, share = Displaced(jnp.array([1.0, 1.5])), jnp.array([0.8, -0.5]), 0.7
    shares = Shares(alone.stiffness, jnp.asarray(unit))
    held = shares.relax(x, Pin(jnp.array([share, 1 - share])))
    assert held.converged
    wanted = alone.relax(x, Pin(jnp.array([np.log(share / (1 - share))])))
    np.testing.assert_allclose(held.state, wanted.state, rtol=1e-9)
    assert not shares.relax(x, Pin(jnp.array([share, share]))).usable


def test_a_status_is_a_sentence():
    found = Equilibrium(jnp.zeros(2), jnp.zeros(()), jnp.zeros(()), jnp.asarray(3), Status.truncated)
    assert "Stopped after the sweeps that were asked for" in str(found)
    assert bool(found.usable)
    assert not bool(found.converged)
