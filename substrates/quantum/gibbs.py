"""Quantum systems at a temperature: the state is the density operator, the energy the free energy."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.nudge import Nudge
from substrates.quantum.eigensolvers import judged, self_consistent, start_of, unsettled
from substrates.quantum.system import QuantumSubstrate
from substrates.solvers.batching import in_turn
from substrates.solvers.solver import ROUNDINGS, Equilibrium, Solver, everywhere
from substrates.substrate import Substrate, fixed, parameter_dtype

MOST_AMPLITUDES = 1024

_TERMS = 14
"""Of Taylor's series of a matrix whose norm is at most 1/2."""

_MOST_HALVINGS = 20


class GibbsWeights(Solver):
    """The closed form log rho = -H/T - log Z, by diagonalisation; nudges that feel the state by Broyden's method."""

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        scale = substrate.temperature + substrate.model.energy_scale(x)
        weights, limit = start_of(substrate, start, x, nudge, scale, ROUNDINGS)

        def look(weights, start, target):
            energies, vectors = in_turn(jnp.linalg.eigh)(substrate.model.hamiltonian(x, weights).matrix())
            log_p = jax.nn.log_softmax(-energies / substrate.temperature)
            state = (vectors * log_p) @ vectors.T
            own = None if nudge is None else -nudge.pull(substrate.read(state, x))
            energy, step, gap = unsettled(start.dtype)
            return own, substrate.residual(state, x, nudge), (state, energy, step + 1, gap)

        first = (start, *unsettled(start.dtype))
        (state, _, steps, _), residual = self_consistent(nudge, weights, first, look, limit)
        energy = substrate.total_energy(state, x, nudge)
        return Equilibrium(state, energy, residual, steps, judged(state, residual, limit))


class GibbsEnsemble(Substrate):
    """A quantum system at a temperature T: the state holds log rho, a symmetric matrix, with rho the density operator.

    The energy is the free energy A[rho] = tr(rho H) + T tr(rho log rho), least at rho = exp(-H/T)/Z, where it is
    -T log Z. Away from equilibrium rho = exp(K) / tr exp(K) with K the symmetric part of the state, and
    T/2 (log tr exp K)^2 + (T + S) |state - state'|^2 / 4 is added, with S the scale of the energies of H, which draws
    the state to its norm and to symmetry and changes no equilibrium. What is read are the means tr(rho O_k), and a
    nudge acts as an operator, as in a pure state.

    Attributes:
        model: the system, trainable; its level does not matter.
        temperature: T, in units of energy.

    Source: Massar and Mognetti 2024, arXiv 2405.08467; Scellier 2024, arXiv 2406.00879.
    """

    contrast_points: ClassVar[int] = 0
    holomorphic: ClassVar[bool] = False
    pins: ClassVar[bool] = False
    solver: ClassVar[Any] = GibbsWeights()

    model: QuantumSubstrate
    temperature: Float[Array, ""] = fixed()

    def energy(self, state: Float[Array, "amplitudes amplitudes"], x: PyTree) -> Float[Array, ""]:
        root = self._root(state)
        log_z = jnp.log(jnp.vdot(root, root))
        share = root / jnp.exp(log_z / 2)
        symmetric = (state + state.T) / 2
        operator = self.model.hamiltonian(x)
        mean = jnp.vdot(share, jax.vmap(operator)(share))
        entropy = log_z - jnp.vdot(share, symmetric @ share)
        scale = self.temperature + self.model.energy_scale(x)
        skew = 0.25 * scale * jnp.sum((state - state.T) ** 2)
        return mean - self.temperature * entropy + 0.5 * self.temperature * log_z**2 + skew

    def initial_state(self, x: PyTree) -> Float[Array, "amplitudes amplitudes"]:
        """The state of infinite temperature."""
        self.model.initial_state(x)
        size = self.model.dimension
        return -np.log(size) * jnp.eye(size, dtype=self.temperature.dtype)

    def read(self, state: Float[Array, "amplitudes amplitudes"], x: PyTree) -> Float[Array, "outputs"]:
        root = self._root(state)
        return jnp.sum(jax.vmap(self.model.means)(root), axis=0) / jnp.vdot(root, root)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        """The temperature and the scale of the energies."""
        return everywhere(self.temperature + self.model.energy_scale(x), state)

    def constrained(self) -> GibbsEnsemble:
        return eqx.tree_at(lambda e: e.model, self, self.model.constrained())

    def _root(self, state: Float[Array, "amplitudes amplitudes"]) -> Float[Array, "amplitudes amplitudes"]:
        """exp(K/2), whose rows are vectors of the mixture: exp(K) is the sum of their projectors."""
        return exponential((state + state.T) / 4)


def exponential(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """exp(A) by scaling, Taylor's series and squaring; differentiable to any order, at degenerate eigenvalues too."""
    size = jnp.max(jnp.sum(jnp.abs(jax.lax.stop_gradient(matrix)), axis=1))
    halvings = jnp.clip(jnp.ceil(jnp.log2(size)) + 1, 0, _MOST_HALVINGS)
    small, one = matrix * 2**-halvings, jnp.eye(len(matrix), dtype=matrix.dtype)
    series = jax.lax.fori_loop(0, _TERMS, lambda k, total: one + small @ total / (_TERMS - k), one)
    square = lambda k, root: jax.lax.cond(k < halvings, lambda: root @ root, lambda: root)
    return jax.lax.fori_loop(0, _MOST_HALVINGS, square, series)


def gibbs_ensemble(model: QuantumSubstrate, temperature: Any) -> GibbsEnsemble:
    """The ensemble of a system at a temperature, checked.

    Raises:
        ValueError: for a temperature that is not positive and finite, and for more than 1024 amplitudes.
    """
    if model.dimension > MOST_AMPLITUDES:
        raise ValueError(
            f"model: wanted at most {MOST_AMPLITUDES} amplitudes, whose density operator is diagonalised, got "
            f"{model.dimension}, for which it would need {8e-9 * model.dimension**2:.3g} GB"
        )
    if not isinstance(temperature, Tracer) and not (
        np.ndim(temperature) == 0 and 0 < float(temperature) < float("inf")
    ):
        raise ValueError(
            f"temperature: wanted a positive number, in units of energy, got {temperature}; at zero the ground state "
            "is what the model's own relax finds"
        )
    return GibbsEnsemble(model, jnp.asarray(temperature, parameter_dtype(model)))
