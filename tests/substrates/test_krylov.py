"""Systems too large for a matrix: linear systems, saddles, complex states and flows, against dense and direct ones."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from substrates import Nudge, Substrate
from substrates.solvers.generic import DescendThenPolish, Newton
from substrates.solvers.krylov import solve
from substrates.substrate import SquaredError, fixed

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None: net.relax(x, nudge, start))
solved = jax.jit(lambda matrix, right, rows: solve(lambda a: matrix @ a, right, "symmetric", part=1e-10, rows=rows))

solved_complex = jax.jit(lambda matrix, right: solve(lambda a: matrix @ a, right, "general", part=1e-10))


@given(seed=st.integers(0, 10**6), spread=st.floats(0, 3))
def test_minimal_residuals_solve_indefinite_symmetric_systems(seed, spread):
    draw = np.random.default_rng(seed)
    basis = np.linalg.qr(draw.normal(size=(12, 12)))[0]
    values = draw.choice([-1.0, 1.0], 12) * 10 ** draw.uniform(-spread, 0, 12)
    matrix, wanted = basis * values @ basis.T, draw.normal(size=12)
    right = matrix @ wanted
    found = solved(matrix, right, np.sum(np.abs(matrix), axis=1))
    assert np.linalg.norm(matrix @ found - right) < 1e-8 * np.linalg.norm(right)


@given(seed=st.integers(0, 10**6))
def test_complex_systems_are_solved_as_they_are(seed):
    draw = np.random.default_rng(seed)
    matrix = np.eye(30) + 0.1 * (draw.normal(size=(30, 30)) + 1j * draw.normal(size=(30, 30)))
    right = draw.normal(size=30) + 1j * draw.normal(size=30)
    found = solved_complex(jnp.asarray(matrix), jnp.asarray(right))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-7, atol=1e-9)


class Path(Substrate):
    """A particle in a well between two places: its path makes the action stationary, and over long times a saddle."""

    solver = Newton()

    hardening: jax.Array
    step: float = fixed()
    count: int = eqx.field(static=True)

    def energy(self, state, x):
        path = jnp.concatenate([x[:1], state, x[1:]])
        kinetic = jnp.sum((jnp.diff(path) / self.step) ** 2) / 2
        return self.step * (kinetic - jnp.sum(state**2 / 2 + self.hardening * state**4 / 4))

    def initial_state(self, x):
        return x[0] + (x[1] - x[0]) * jnp.linspace(0, 1, self.count + 2)[1:-1]

    def read(self, state, x):
        return state[-1:]


@pytest.mark.slow
def test_an_action_of_two_thousand_variables_finds_the_path_of_its_ends():
    count, step, hardening = 2000, 0.005, 0.2
    path = [0.8, 0.8 + 0.3 * step]
    for _ in range(count):
        path.append(2 * path[-1] - path[-2] - step**2 * (path[-1] + hardening * path[-1] ** 3))
    path = np.array(path)
    system = Path(jnp.array(hardening), step, count)
    start = path[1:-1] + 0.01 * np.sin(np.linspace(0, 3, count))
    found = relax(system, jnp.array([path[0], path[-1]]), None, jnp.asarray(start))
    assert found.converged, str(found)
    curvature = 2 / step - step * (1 + 3 * hardening * path[1:-1] ** 2)
    hessian = np.diag(curvature) - np.diag(np.full(count - 1, 1 / step), 1) - np.diag(np.full(count - 1, 1 / step), -1)
    assert np.sum(np.linalg.eigvalsh(hessian) < 0) >= 2, "a saddle"
    np.testing.assert_allclose(found.state, path[1:-1], atol=1e-6)


class Chain(Substrate):
    """Wells in a row, each held to the next: a system of any size with a continuation to complex numbers."""

    well: jax.Array
    spring: jax.Array

    def energy(self, state, x):
        wells = jnp.sum(self.well * (state**2 / 2 + state**4 / 4)) - jnp.sum(x * state)
        return wells + jnp.sum(self.spring * jnp.diff(state) ** 2) / 2

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state[:2]


def test_six_hundred_complex_variables_settle_at_the_root_of_the_force():
    keys = jax.random.split(jax.random.key(0), 3)
    system = Chain(jax.random.uniform(keys[0], (600,), minval=0.5), jax.random.uniform(keys[1], (599,)))
    x = np.asarray(jax.random.normal(keys[2], (600,)))
    target, beta = jnp.array([0.3, -0.2]), jnp.asarray(0.2 + 0.3j)
    found = relax(system, jnp.asarray(x), Nudge(SquaredError(), target, beta))
    assert found.converged, str(found)
    well, spring, state = np.asarray(system.well), np.asarray(system.spring), np.zeros(600, complex)
    held = np.zeros(600, complex)
    held[:2] = beta
    aim = np.zeros(600)
    aim[:2] = target
    laplacian = np.diag(np.append(spring, 0) + np.append(0, spring)) - np.diag(spring, 1) - np.diag(spring, -1)
    for _ in range(50):
        value = well * (state + state**3) - x + laplacian @ state + held * (state - aim)
        state -= np.linalg.solve(np.diag(well * (1 + 3 * state**2) + held) + laplacian, value)
    np.testing.assert_allclose(found.state, state, rtol=1e-8, atol=1e-8)


NEURONS = """
import resource
import jax, jax.numpy as jnp, numpy as np
from substrates import Substrate

class Neurons(Substrate):
    weight: jax.Array
    sources: jax.Array
    def force(self, state, x):
        return jnp.tanh(jnp.sum(self.weight * state[self.sources], axis=1) + x) - state
    def initial_state(self, x):
        return jnp.zeros_like(x)
    def read(self, state, x):
        return state[:3]

draw = np.random.default_rng(0)
weight = draw.normal(size=(10_000, 8)) * 0.5
sources = draw.integers(0, 10_000, (10_000, 8))
x = draw.normal(size=10_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = Neurons(jnp.asarray(weight, jnp.float32), jnp.asarray(sources)).relax(jnp.asarray(x, jnp.float32))
state = np.zeros(10_000)
for _ in range(3000):
    state = 0.5 * state + 0.5 * np.tanh(np.sum(weight * state[sources], axis=1) + x)
print(bool(found.converged), float(np.max(np.abs(found.state - state))))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_ten_thousand_neurons_without_an_energy_settle_without_a_matrix():
    shown = subprocess.run([sys.executable, "-c", NEURONS], capture_output=True, text=True, check=True).stdout.split()
    converged, error, megabytes = shown
    assert converged == "True"
    assert float(error) < 1e-4
    assert float(megabytes) < 1000, "a matrix of them takes 400 MB, its factor as much again"


@pytest.mark.parametrize("solver", [DescendThenPolish(), Newton()])
def test_a_limited_solver_stops_where_it_was_told_to(solver):
    system = Chain(jnp.linspace(0.5, 1.5, 6), jnp.ones(5))
    x = jnp.array([3.0, -2.0, 0.5, 4.0, -1.0, 0.2])
    compiled = []

    @eqx.filter_jit
    def settled(count):
        compiled.append(count)
        return system.relax(x, solver=solver.limited(count))

    found = [settled(jnp.asarray(count)) for count in (0, 1, 2, 3, 400)]
    assert len(compiled) == 1, "the count is a run-time number"
    for count, equilibrium in enumerate(found[:4]):
        assert equilibrium.usable
        assert not equilibrium.converged
        assert int(equilibrium.steps) == count
    np.testing.assert_array_equal(found[0].state, system.initial_state(x))
    energies = [float(equilibrium.energy) for equilibrium in found]
    assert energies[4] < energies[3] < energies[0]
    assert found[4].converged
    np.testing.assert_allclose(found[4].state, system.relax(x, solver=solver).state, rtol=1e-9)
