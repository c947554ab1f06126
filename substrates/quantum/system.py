"""Quantum systems that settle to an eigenstate: what all of them share."""

from __future__ import annotations

import abc
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from substrates.nudge import Nudge, Pin
from substrates.quantum.eigensolvers import EigenstateSolver, Operator
from substrates.solvers.batching import spectra_in_turn
from substrates.solvers.solver import Solver, everywhere
from substrates.substrate import Substrate, parameter_dtype, split_parameters


def root_of_squares(values: Float[Array, "..."]) -> Float[Array, ""]:
    """The root of the sum of squares, smooth but where all vanish; there 0, with slopes 0."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(values), initial=0.0))
    some = jnp.where(size > 0, size, 1)
    return size * jnp.sqrt(jnp.sum((values / some) ** 2) + (some - size))  # 1 under the root where all vanish


class Contrasted(Substrate):
    """A system whose parameters multiply something of the state: `apart` is by how much two states differ in that, and
    `energy_apart` what it makes of their energies.
    """

    @abc.abstractmethod
    def apart(self, plus: PyTree, minus: PyTree, x: PyTree) -> PyTree:
        """By what two states differ."""

    @abc.abstractmethod
    def energy_apart(self, apart: PyTree, x: PyTree) -> Float[Array, ""]:
        """The difference of their energies, but for what has no parameter in it."""

    def contrast(
        self,
        plus: PyTree,
        minus: PyTree,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """measure(plus) - measure(minus), averaged over a batch; exact, and without cancellation."""
        if any(map(jnp.iscomplexobj, jax.tree.leaves((plus, minus)))):
            measured = self.measure(plus, xs, nudges_plus), self.measure(minus, xs, nudges_minus)
            return jax.tree.map(jnp.subtract, *measured)
        apart = jax.vmap(self.apart)(plus, minus, xs)
        parameters, rest = split_parameters(self)
        energy = lambda parameters, d, x: eqx.combine(parameters, rest).energy_apart(d, x)
        return jax.grad(lambda p: jnp.mean(jax.vmap(energy, in_axes=(None, 0, 0))(p, apart, xs)))(parameters)


class QuantumSubstrate(Contrasted):
    """A quantum system whose state is the eigenvector psi of a Hamiltonian H(theta; x), of real amplitudes.

        E = <psi|H|psi> / <psi|psi> + S (<psi|psi> - 1)^2 / 4,

    the mean energy, and a term that draws the vector to unit norm; it vanishes at every equilibrium and changes none.
    S is a size of H that is smooth in its parameters.
    Outputs are expectation values <O_k> of operators. A nudge beta C(<O>) acts as the operator -sum_k pull_k O_k with
    pull = -beta dC/d<O>: with `about`, a fixed one; without, one that the nudged state decides itself. A cost that is
    linear in its outputs is a cost operator. With the state at its level k of the spectrum,

        dC/dtheta = d/dbeta <psi_beta| dH/dtheta |psi_beta>.

    It is equilibrium propagation without any special rule, and exact for every level that is not degenerate; the ground
    state has the bounds of minima besides. The residual is the norm |H psi - <H> psi| of the eigenvector equation,
    twice as in the force, as a part of the scale of the energies. Energies have any unit: only their ratios matter.

    `level` counts from the ground state, 0. `relax` finds the eigenstate of the level with the sign that overlaps with
    its start; the status is `zero_mode` where the level is degenerate or nearly so (a gap of at most 1e-6 of
    `energy_scale`): then the state, and what it would do under a nudge, are not decided. A pin is left to the generic
    solver, for small systems.

    Source: Scellier 2024, arXiv 2406.00879; Wanjura and Marquardt 2024, arXiv 2406.06482; excited states, Massar and
    Mognetti 2024, arXiv 2405.08467.
    """

    contrast_points: ClassVar[int] = 1
    holomorphic: ClassVar[bool] = False

    # what each kind of system says

    @property
    @abc.abstractmethod
    def dimension(self) -> int:
        """The dimension of the Hilbert space."""

    @abc.abstractmethod
    def hamiltonian(self, x: PyTree, weights: Float[Array, "outputs"] | None = None) -> Operator:
        """H(x) + sum_k weights_k O_k."""

    @abc.abstractmethod
    def means(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "outputs"]:
        """<v|O_k|v> of each output, not divided by the norm."""

    @abc.abstractmethod
    def energy_scale(self, x: PyTree) -> Float[Array, ""]:
        """The scale of the energies: a bound on the magnitude of the eigenvalues of H, up to a constant."""

    @abc.abstractmethod
    def norm_stiffness(self, x: PyTree) -> Float[Array, ""]:
        """S, a size of H without a kink, unlike sums of magnitudes, where a parameter vanishes."""

    @abc.abstractmethod
    def excitations(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "amplitudes"]:
        """A vector that low excitations of an eigenvector overlap with: where a search for them starts."""

    def diagonalised(self, operator: Operator) -> tuple[Float[Array, "levels"], Float[Array, "levels amplitudes"]]:
        """The energies of all levels of an operator, ascending, and their unit vectors, one per row."""
        energies, vectors = spectra_in_turn(jnp.linalg.eigh)(operator.matrix())
        return energies, vectors.T

    def aligned(self, vector: Float[Array, "amplitudes"], start: Float[Array, "amplitudes"]) -> Array:
        """The vector with the sign with which it overlaps with another."""
        return jnp.where(jnp.vdot(vector, start) < 0, -vector, vector)

    def same_ray(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "vectors amplitudes"]:
        """An orthonormal basis of the vectors that describe the same physical state."""
        return vector[None]

    def gauge(self, x: PyTree) -> Float[Array, "amplitudes"] | None:
        """A vector that states are kept orthogonal to, by a term S/2 <gauge|psi>^2; None where no gauge is free."""
        return None

    # the contract

    def energy(self, state: Float[Array, "amplitudes"], x: PyTree) -> Float[Array, ""]:
        mean = jnp.vdot(state, self.hamiltonian(x)(state)) / jnp.vdot(state, state)
        return mean + self.norm_stiffness(x) * self._off(state, x)

    def _off(self, state: Float[Array, "amplitudes"], x: PyTree) -> Float[Array, ""]:
        """(<psi|psi> - 1)^2 / 4, and <gauge|psi>^2 / 2 where there is a gauge: zero at every equilibrium."""
        gauge, off = self.gauge(x), 0.25 * (jnp.vdot(state, state) - 1) ** 2
        return off if gauge is None else off + 0.5 * jnp.vdot(gauge, state) ** 2

    def read(self, state: Float[Array, "amplitudes"], x: PyTree) -> Float[Array, "outputs"]:
        return self.means(state) / jnp.vdot(state, state)

    def force(self, state: Float[Array, "amplitudes"], x: PyTree) -> Array:
        return self.total_force(state, x)

    def total_force(self, state: Float[Array, "amplitudes"], x: PyTree, nudge: Nudge | Pin | None = None) -> Array:
        """-2 (H psi - <H> psi) / <psi|psi> - S (<psi|psi> - 1) psi, with the nudge's operators in H."""
        weights = -nudge.pull(self.read(state, x)) if isinstance(nudge, Nudge) else None
        norm = jnp.vdot(state, state)
        moved = self.hamiltonian(x, weights)(state)
        gauge = self.gauge(x)
        off = (norm - 1) * state + (0 if gauge is None else jnp.vdot(gauge, state) * gauge)
        return -2 * (moved - (jnp.vdot(state, moved) / norm) * state) / norm - self.norm_stiffness(x) * off

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The 2-norm of the force, 2 |H psi - <H> psi|, as a part of the scale of the energies; with a pin what the
        contract defines.
        """
        if isinstance(nudge, Pin):
            return Substrate.residual(self, state, x, nudge)
        scale = self.energy_scale(x)
        force = self.total_force(state, x, nudge) / jnp.where(scale > 0, scale, 1)
        return jnp.sqrt(jnp.vdot(force, force))

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        """The scale of the energies: every amplitude feels all of H."""
        return everywhere(self.energy_scale(x), state)

    @property
    def solver(self) -> Solver:  # type: ignore[override]
        """Dense diagonalisation of small systems, conjugate gradients above."""
        return EigenstateSolver()

    def undecided(self) -> str:
        """Which gaps count as none."""
        if not isinstance(self.solver, EigenstateSolver):
            return ""
        return (
            "A level counts as degenerate, a `zero_mode`, where its gap to the next or the one before is at most "
            f"{self.solver.no_gap(parameter_dtype(self)):.2g} of the scale of the energies (`energy_scale(x)`): make "
            "the gap larger, as a longitudinal field does between two ordered states"
        )

    def susceptibility(self, state: PyTree, x: PyTree) -> Float[Array, "outputs outputs"]:
        """d<O_k>/dlambda_l, the response of every output to every operator added as lambda_l O_l, at an eigenstate.

        It is -2 <psi|O_k (H - E)^-1 O_l|psi> outside psi: symmetric, and negative semidefinite in the ground state. By
        conjugate gradients on (H - E) phi = -(O - <O>) psi outside the state; meant for the ground state, where H - E
        is positive there.
        """
        norm = jnp.sqrt(jnp.vdot(state, state))
        state = state / norm
        ray = self.same_ray(state)
        operator = self.hamiltonian(x)
        energy = jnp.vdot(state, operator(state))

        def outside(vector):
            for unit in ray:
                vector -= jnp.vdot(unit, vector) * unit
            return vector

        shifted = lambda vector: outside(operator(outside(vector)) - energy * outside(vector))
        slopes, transpose = jax.vjp(self.means, state)
        # d<O_k> = 2 <psi|O_k|dpsi>, and the slope of a mean is 2 O_k psi
        pushed = jax.vmap(lambda e: outside(transpose(e)[0]))(jnp.eye(slopes.size, dtype=slopes.dtype))
        answer = lambda push: jax.scipy.sparse.linalg.cg(shifted, -push / 2, tol=1e-12, maxiter=2000)[0]
        moved = jax.lax.map(answer, pushed)
        return jnp.tensordot(pushed, moved, axes=(tuple(range(1, pushed.ndim)),) * 2)

    def apart(self, plus: PyTree, minus: PyTree, x: PyTree) -> PyTree:
        """(plus - minus, plus + minus) of unit vectors, whatever their signs, and what else draws them together."""
        first, second = (state / jnp.sqrt(jnp.vdot(state, state)) for state in (plus, minus))
        return first - second, first + second, self._off(plus, x) - self._off(minus, x)

    def energy_apart(self, apart: PyTree, x: PyTree) -> Float[Array, ""]:
        difference, both, off = apart
        return jnp.vdot(difference, self.hamiltonian(x)(both)) + self.norm_stiffness(x) * off
