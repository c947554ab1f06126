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
from substrates.quantum.eigensolvers import is_free, judged, self_consistent, unsettled
from substrates.quantum.system import Contrasted, QuantumSubstrate
from substrates.solvers.batching import spectra_in_turn
from substrates.solvers.solver import ROUNDINGS, Equilibrium, Solver, default_tolerance, everywhere, left_over
from substrates.substrate import fixed, parameter_dtype
from substrates.wiring import with_leading_axes

MOST_AMPLITUDES = 1024

_TERMS = 14
"""Of Taylor's series of a matrix whose norm is at most 1/2."""

_MOST_HALVINGS = 20


class GibbsWeights(Solver):
    """The closed form log rho = -H/T - log Z, by diagonalisation; nudges that feel the state by Broyden's method."""

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        model, temperature, dtype = substrate.model, substrate.temperature, start.dtype
        scale = temperature + model.energy_scale(x)
        free, least = default_tolerance(dtype), ROUNDINGS * float(jnp.finfo(dtype).eps)

        def look(weights, start, target):
            matrix = model.hamiltonian(x, weights).matrix()
            energies, vectors = spectra_in_turn(jnp.linalg.eigh)(matrix)
            log_p = jax.nn.log_softmax(-energies / temperature)
            p, state = jnp.exp(log_p), (vectors * log_p[None]) @ vectors.T
            energy = temperature * jnp.vdot(p, log_p) + jnp.vdot(p, energies)
            slopes = frechet(p, log_p)

            def forces(operators: Float[Array, "... n n"]) -> Float[Array, "... n n"]:
                """-d tr(rho A)/dstate of operators A in the basis of the eigenvectors."""
                inner = vectors.T @ operators
                mean = jnp.einsum("...ii,i->...", inner, p)[..., None, None]
                along = lambda matrix: with_leading_axes(matrix, inner.ndim)
                return -vectors @ (along(slopes) * (inner - mean * along(one))) @ vectors.T

            one = jnp.eye(len(p), dtype=dtype)
            force, meeting, own, limit = (
                forces(matrix @ vectors + vectors * (temperature * log_p[None])),
                scale,
                None,
                free,
            )
            if nudge is not None:
                rows = vectors.T
                means, transpose = jax.vjp(jax.vmap(model.means), rows)
                output = p @ means
                own = -nudge.pull(output)
                energy += nudge.energy(output) - jnp.vdot(weights, output)
                # the slope of a mean is 2 O_k psi
                acting = lambda w: transpose(jnp.broadcast_to(w / 2, means.shape))[0].T
                added, brought, pushed = forces(jax.vmap(acting)(jnp.stack([own - weights, nudge.size(output), own])))
                force, meeting = force + added, scale + jnp.abs(brought)
                limit = jnp.where(is_free(nudge), free, jnp.maximum(free * left_over(pushed, scale), least))
            return own, left_over(force, meeting) / limit, (state, energy, jnp.ones((), jnp.int32), limit)

        weights = None if nudge is None else -nudge.pull(substrate.read(start, x))
        first, one = (start, *unsettled(dtype)), jnp.ones((), dtype)
        (state, energy, steps, limit), residual = self_consistent(nudge, weights, first, look, one)
        return Equilibrium(state, energy, residual * limit, steps, judged(state, residual, one))


def frechet(p: Float[Array, "n"], log_p: Float[Array, "n"]) -> Float[Array, "n n"]:
    """(p_i - p_j) / (log p_i - log p_j) of all pairs, p_i where they are the same: how exp(K) answers to a change of K
    in the basis of its eigenvectors (Daleckii and Krein 1965).
    """
    apart = jnp.abs(log_p[:, None] - log_p[None])
    safe = jnp.where(apart > 0, apart, 1)
    return jnp.maximum(p[:, None], p[None]) * jnp.where(apart > 0, -jnp.expm1(-safe) / safe, 1)


class GibbsEnsemble(Contrasted):
    """A quantum system at a temperature T: the state holds log rho, a symmetric matrix, with rho the density operator.

    The energy is the free energy A[rho] = tr(rho H) + T tr(rho log rho), least at rho = exp(-H/T)/Z, where it is
    -T log Z. Away from equilibrium rho = exp(K) / tr exp(K) with K the symmetric part of the state, and
    T/2 (log tr exp K)^2 + (T + S) |state - state'|^2 / 4 is added, with S the size of H, which draws
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

    @property
    def input_size(self) -> int | None:
        return self.model.input_size

    def energy(self, state: Float[Array, "amplitudes amplitudes"], x: PyTree) -> Float[Array, ""]:
        root = self._root(state)
        log_z = jnp.log(jnp.vdot(root, root))
        share = root / jnp.exp(log_z / 2)
        symmetric = (state + state.T) / 2
        operator = self.model.hamiltonian(x)
        mean = jnp.vdot(share, jax.vmap(operator)(share))
        entropy = log_z - jnp.vdot(share, symmetric @ share)
        skew = (self.temperature + self.model.norm_stiffness(x)) * _skew(state)
        return mean - self.temperature * entropy + 0.5 * self.temperature * log_z**2 + skew

    def apart(self, plus: PyTree, minus: PyTree, x: PyTree) -> PyTree:
        roots = self._root(plus), self._root(minus)
        rho, other = (root @ root / jnp.vdot(root, root) for root in roots)
        return rho - other, _skew(plus) - _skew(minus)

    def energy_apart(self, apart: PyTree, x: PyTree) -> Float[Array, ""]:
        return jnp.vdot(apart[0], self.model.hamiltonian(x).matrix()) + self.model.norm_stiffness(x) * apart[1]

    def initial_state(self, x: PyTree) -> Float[Array, "amplitudes amplitudes"]:
        """The state of infinite temperature."""
        self.model.initial_state(x)
        size = self.model.dimension
        return -float(np.log(size)) * jnp.eye(size, dtype=self.temperature.dtype)

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


def _skew(state: Float[Array, "n n"]) -> Float[Array, ""]:
    """|state - state'|^2 / 4."""
    return 0.25 * jnp.sum((state - state.T) ** 2)


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
