"""The law of units: multiply every energy by a number, and the equilibrium stays."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Inexact, PyTree

from substrates.solvers.generic import DescendThenPolish, Newton
from substrates.substrate import Substrate, fixed, split_parameters
from substrates.wrapper import Wrapper
from theory_checks.case import Case, compiled, relax_in_turn
from theory_checks.report import Law, at_most, does_not_apply

FACTORS = {8: (1e-15, 1e-9, 1e9), 4: (1e-9, 1e-5, 1e6)}
"""By how much energies are multiplied, by the bytes of a number."""

MOST_PARAMETERS = 8
"""So many arrays of parameters are tried in all combinations."""

NAME = "the same equilibrium in other units"


class InUnits(Wrapper):
    """A system whose energy and force are those of another, times a constant; the contract derives the rest."""

    inner: Substrate
    unit: Inexact[Array, ""] = fixed()

    def inside(self, given: PyTree) -> PyTree:
        return NotImplemented

    def energy(self, state: PyTree, x: PyTree) -> Inexact[Array, ""]:
        return self.unit * self.inner.energy(state, x)

    def force(self, state: PyTree, x: PyTree) -> PyTree:
        return jax.tree.map(lambda f: self.unit * f, self.inner.force(state, x))

    def bounds(self, x: PyTree) -> tuple[PyTree, PyTree] | None:
        return self.inner.bounds(x)


def _shown(substrate: Substrate, states: PyTree, xs: PyTree) -> Array:
    if substrate.conservative:
        return jax.vmap(substrate.energy)(states, xs)
    return ravel_pytree(jax.vmap(lambda s, x: substrate.force(s, x))(states, xs))[0]


_energies_or_forces = compiled(_shown)


@compiled
def _shares(substrate: Substrate, states: PyTree, xs: PyTree) -> tuple[Array, Array]:
    """What each parameter contributes by Euler's theorem, <theta, d/dtheta>, of the energies or forces; and these."""
    parameters, rest = split_parameters(substrate)
    leaves, structure = jax.tree.flatten(parameters)
    shown = lambda leaves: _shown(eqx.combine(structure.unflatten(leaves), rest), states, xs)
    alone = lambda k: [leaf if j == k else jnp.zeros_like(leaf) for j, leaf in enumerate(leaves)]
    shares = [jax.jvp(shown, (leaves,), (alone(k),))[1] for k in range(len(leaves))]
    return jnp.stack(shares) if shares else jnp.zeros((0, 1)), shown(leaves)


def _multiplied(substrate: Substrate, chosen: tuple[int, ...], factor: float) -> Substrate:
    """The system with some of its parameters, by their numbers, times a factor."""
    parameters, rest = split_parameters(substrate)
    leaves, structure = jax.tree.flatten(parameters)
    moved = [
        jnp.asarray(np.asarray(leaf) * leaf.dtype.type(factor)) if k in chosen else leaf
        for k, leaf in enumerate(leaves)
    ]
    return eqx.combine(structure.unflatten(moved), rest)


def _carriers(case: Case) -> tuple[int, ...] | None:
    """The numbers of parameters, as many as can be, in which energies (or forces) are homogeneous of degree one."""
    states = case.free.state if case.discrete else case.nearby(11)
    shares, whole = _shares(case.substrate, states, case.xs)
    equal = lambda found: float(np.max(np.abs(found - whole))) <= 1e3 * case.epsilon * float(np.max(np.abs(whole)))
    most = len(shares) if len(shares) <= MOST_PARAMETERS else 0
    for count in range(most, 0, -1):
        for chosen in itertools.combinations(range(len(shares)), count):
            doubled = lambda c=chosen: _energies_or_forces(_multiplied(case.substrate, c, 2.0), states, case.xs)
            if equal(np.sum(shares[list(chosen)], axis=0)) and equal(doubled() / 2):
                return chosen
    return None


def units(case: Case) -> list[Law]:
    """Energies in another unit lead to the same equilibrium, and no relaxation there is converged and elsewhere."""
    if not np.all(case.free.converged):
        return [does_not_apply(NAME, "The free phase does not settle to one state: it is truncated, or did not end.")]
    substrate, carriers = case.substrate, _carriers(case)
    generic = not case.own_relaxation and isinstance(substrate.solver, DescendThenPolish | Newton)
    if carriers is None and not generic:
        reason = "The energy is not proportional to parameters, and a solver of its own settles it."
        return [does_not_apply(NAME, reason)]
    worst = 0.0
    for factor in FACTORS[case.dtype.itemsize]:
        if carriers is None:
            scaled = InUnits(substrate, jnp.asarray(factor, case.dtype))
            found = relax_in_turn(scaled, case.xs, None, None, case.keys)
        else:
            found = case.settle(substrate=_multiplied(substrate, carriers, factor))
        states = (case.free.state, found.state)
        if case.discrete:  # of several states of the same energy any may be found
            states = tuple(_energies_or_forces(case.substrate, state, case.xs) for state in states)
        for here, there in zip(*map(jax.tree.leaves, states), strict=True):
            gap = np.max(np.abs(here - there)) / (np.max(np.abs(here)) or 1.0)
            worst = max(worst, float(gap) if np.all(found.usable) else float("inf"))
    bound = 0.5 * case.epsilon**0.375
    return [at_most(NAME, "free states with energies times 1e-9, 1e9, ... against those at hand", worst, bound)]
