"""The law of units: it holds for what has no absolute number, and finds a solver that has one."""

import jax
import jax.numpy as jnp

from learning import SquaredError
from substrates import IsingModel, ResistorNetwork, Substrate
from substrates.solvers.solver import Equilibrium, Status
from theory_checks.case import Case
from theory_checks.laws_of_units import units

X, Y = jnp.array([[0.3], [-0.4]]), jnp.array([[0.5], [0.1]])


class Chain(Substrate):
    """Springs in a row; settled by steps along the force until it is small."""

    stiffness: jax.Array
    relative: bool = True

    def energy(self, position, x):
        stretch = jnp.diff(jnp.concatenate([x, position, jnp.zeros(1)]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2)

    def initial_state(self, x):
        return jnp.zeros(2)

    def read(self, position, x):
        return position[-1:]

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        position = jnp.zeros(2) if start is None else start
        force = lambda s: self.total_force(s, x, nudge)
        size = jnp.max(self.stiffness) if self.relative else 1.0
        going = lambda carry: (jnp.max(jnp.abs(force(carry[0]))) > 1e-12 * size) & (carry[1] < 10_000)
        step = lambda carry: (carry[0] + force(carry[0]) / (4 * jnp.max(self.stiffness)), carry[1] + 1)
        position, steps = jax.lax.while_loop(going, step, (position, jnp.zeros((), jnp.int32)))
        energy, residual = self.total_energy(position, x, nudge), self.residual(position, x, nudge)
        return Equilibrium(position, energy, residual, steps, Status.converged)


class Wells(Substrate):
    """Three methods, and constants that no parameter carries."""

    stiffness: jax.Array

    def energy(self, state, x):
        return 0.5 * jnp.sum(self.stiffness * (state - x) ** 2) + 0.25 * jnp.sum(state**4)

    def initial_state(self, x):
        return jnp.zeros(2)

    def read(self, state, x):
        return state[:1]


def law(system, x=X, y=Y):
    (found,) = units(Case(system, x, y, SquaredError(), jax.random.key(0), 0.1))
    return found


def test_an_absolute_tolerance_is_found():
    stiffness = jnp.array([1.0, 2.0, 1.5])
    assert law(Chain(stiffness)).verdict == "holds"
    assert law(Chain(stiffness, relative=False)).verdict == "fails"


def test_it_holds_for_plug_ins_circuits_and_spins():
    assert law(Wells(jnp.array([1.0, 2.0]))).verdict == "holds"
    net = ResistorNetwork.from_edges([(0, 1), (1, 2), (2, -1)], inputs=[0], outputs=[1], conductance=jnp.ones(3))
    assert law(net).verdict == "holds"
    spins = IsingModel.from_edges([(0, 1), (1, 2)], coupling=jnp.array([1.0, -0.5]), field=0.3, inputs=[0], outputs=[2])
    assert law(spins, jnp.sign(X), jnp.sign(Y)).verdict == "holds"
