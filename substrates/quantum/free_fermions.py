"""Chains of spins in a transverse field as free fermions: exact to thousands of spins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from substrates import arguments
from substrates.nudge import Nudge, Pin
from substrates.quantum.observables import PauliString
from substrates.quantum.polar_factor import PolarFactor, polar_factor
from substrates.quantum.system import Contrasted, root_of_squares
from substrates.solvers.solver import everywhere
from substrates.solvers.spectra import singular_values
from substrates.wiring import summed


class FreeFermionChain(Contrasted):
    """An open chain H = -sum_i J_i Z_i Z_(i+1) - sum_i h_i X_i of N spins, solved exactly as free fermions.

    With B the bidiagonal matrix of h on and J above its diagonal and B = U S V' its singular values, the ground energy
    is -sum S, the gap 2 min S, and the state Q = U V' holds the correlators: <X_i> = Q_ii and
    <Z_i Z_(i+1)> = Q_(i,i+1). It minimises E = -tr(Q' B) over orthogonal matrices, any signs of J and h. Away from
    equilibrium Q stands for its orthogonal polar factor, and |B| |Q'Q - 1|^2 / 4 is added, with |B| the root mean
    square row of B, which draws it there and changes no equilibrium. The gradient of equilibrium propagation costs one
    decomposition per phase, O(N^3).

    Inputs add to h at chosen spins. Outputs are "Xi" or "Zi Zi+1". Energies and fields have one common unit.

    Attributes:
        coupling: J, shape (N - 1,).
        transverse_field: h, shape (N,).
        inputs: the spins at which x, shape (inputs,), adds to h.
        rows, columns: the entries of Q that are read.

    Source: Lieb, Schultz and Mattis 1961; Pfeuty 1970.
    """

    contrast_points: ClassVar[int] = 0
    holomorphic: ClassVar[bool] = False
    pins: ClassVar[bool] = False
    solver: ClassVar[Any] = PolarFactor()

    coupling: Float[Array, "bonds"]
    transverse_field: Float[Array, "spins"]
    inputs: tuple[int, ...] = eqx.field(static=True, default=())
    rows: tuple[int, ...] = eqx.field(static=True, default=())
    columns: tuple[int, ...] = eqx.field(static=True, default=())

    @property
    def size(self) -> int:
        """The number of spins."""
        return self.transverse_field.shape[0]

    def matrix(self, x: Float[Array, "inputs"], weights: Array | None = None) -> Float[Array, "spins spins"]:
        """B, with the operators weights_k O_k that a nudge adds to H."""
        n, i = self.size, np.arange(self.size) * (self.size + 1)
        x = jnp.asarray(x).astype(self.coupling.dtype)
        values = jnp.concatenate([self.transverse_field, self.coupling, x])
        places = np.concatenate([i, i[:-1] + 1, i[np.asarray(self.inputs, int)]])
        matrix = summed(values, places, n * n).reshape(n, n)
        return matrix if weights is None else self.nudged(matrix, weights)

    def nudged(self, matrix: Float[Array, "spins spins"], weights: Array) -> Float[Array, "spins spins"]:
        """A matrix B with the operators weights_k O_k."""
        return matrix.at[np.asarray(self.rows, int), np.asarray(self.columns, int)].add(-weights)

    # the contract

    def energy(self, state: Float[Array, "spins spins"], x: Float[Array, "inputs"]) -> Float[Array, ""]:
        matrix = self.matrix(x)
        return -jnp.vdot(polar_factor(state), matrix) + root_of_squares(matrix) * self._off(state)

    def _off(self, state: Float[Array, "spins spins"]) -> Float[Array, ""]:
        """|Q'Q - 1|^2 / 4: zero at every equilibrium."""
        return 0.25 * jnp.sum((state.T @ state - jnp.eye(self.size, dtype=state.dtype)) ** 2)

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The largest entry of (B'Q - Q'B)/|B| and of Q'Q - 1: zero where Q is orthogonal and Q'B symmetric."""
        weights = -nudge.pull(self.entries(state)) if isinstance(nudge, Nudge) else None
        return self.imbalance(state, self.matrix(x, weights), jnp.max(jnp.abs(self.matrix(x))))

    def imbalance(self, state: Array, matrix: Array, scale: Float[Array, ""]) -> Float[Array, ""]:
        """The residual of a state for B with the operators of a nudge, its entries measured against a scale."""
        product = state.T @ matrix / jnp.where(scale > 0, scale, 1)
        off = state.T @ state - jnp.eye(self.size, dtype=state.dtype)
        return jnp.max(jnp.abs(jnp.stack([product - product.T, off])))

    def apart(self, plus: PyTree, minus: PyTree, x: PyTree) -> PyTree:
        return polar_factor(plus) - polar_factor(minus), self._off(plus) - self._off(minus)

    def energy_apart(self, apart: PyTree, x: PyTree) -> Float[Array, ""]:
        matrix = self.matrix(x)
        return root_of_squares(matrix) * apart[1] - jnp.vdot(apart[0], matrix)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        """The largest entry of B."""
        return everywhere(jnp.max(jnp.abs(self.matrix(x))), state)

    @property
    def input_size(self) -> int:
        return len(self.inputs)

    def initial_state(self, x: Float[Array, "inputs"]) -> Float[Array, "spins spins"]:
        """No correlation: every spin along its transverse field."""
        return jnp.diag(jnp.where(self.transverse_field < 0, -1, 1).astype(self.coupling.dtype))

    def read(self, state: Float[Array, "spins spins"], x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        return self.entries(polar_factor(state))

    def entries(self, factor: Float[Array, "spins spins"]) -> Float[Array, "outputs"]:
        """What is read of an orthogonal matrix."""
        return factor[np.asarray(self.rows, int), np.asarray(self.columns, int)]

    # the way to build one

    @classmethod
    def chain(
        cls,
        n: int,
        *,
        coupling: Any = 1.0,
        transverse_field: Any = 1.0,
        inputs: Sequence[int] = (),
        outputs: Sequence[str] = (),
    ) -> Self:
        """A row of n spins.

        Args:
            n: how many, at least 2.
            coupling: J of each bond, shape (n - 1,) or one number.
            transverse_field: h of each spin, shape (n,) or one number.
            inputs: spins at which x adds to the transverse field.
            outputs: names "X3" or "Z3 Z4".

        Raises:
            ValueError: for outputs that are not free-fermionic pairs, and numbers that do not fit.
        """
        if n < 2:
            raise ValueError(f"n: wanted at least two spins, got {n}")
        J = arguments.one_each("coupling", coupling, n - 1, "bond", owner="model")
        h = arguments.one_each("transverse_field", transverse_field, n, "spin", owner="model")
        dtype = jnp.result_type(J.dtype, h.dtype)
        inputs = arguments.different_nodes("inputs", inputs, n, "spin")
        entries = []
        for name in outputs:
            string = PauliString.parse(name)
            spins = string.spins
            single = len(string.flips) == 1 and not string.signs
            pair = not string.flips and len(spins) == 2 and spins[1] == spins[0] + 1
            if not (single or pair) or max(spins) >= n:
                raise ValueError(
                    f"outputs: wanted 'Xi' or 'Zi Zi+1' of spins from 0 to {n - 1}, got {name!r}; other operators are "
                    "not quadratic in the fermions, use TransverseFieldIsing"
                )
            entries.append((spins[0], spins[-1]))
        rows, columns = tuple(i for i, _ in entries), tuple(j for _, j in entries)
        return cls(J.astype(dtype), h.astype(dtype), inputs, rows, columns)

    # what it knows besides

    def transverse_means(self, state: Float[Array, "spins spins"]) -> Float[Array, "spins"]:
        """<X_i> of every spin."""
        return jnp.diagonal(state)

    def bond_means(self, state: Float[Array, "spins spins"]) -> Float[Array, "bonds"]:
        """<Z_i Z_(i+1)> of every bond."""
        return jnp.diagonal(state, 1)

    def spectrum(self, x: Float[Array, "inputs"]) -> Float[Array, "spins"]:
        """The energies 2 S of the fermions, descending; the last is the gap."""
        return 2 * singular_values(self.matrix(x))


def ring_energy(n: int, coupling: float = 1.0, field: float = 1.0, *, odd: bool = False) -> float:
    """The lowest energy of a uniform ring of n spins, J = `coupling` >= 0, h = `field` >= 0, in one sector of parity.

    -sum_k sqrt(J^2 + h^2 - 2 J h cos k) over k = (2m + 1) pi / n for the even sector prod X_i = 1, which has the ground
    state; over k = 2 pi m / n for the odd one, where the mode k = 0 counts with the sign of J - h.

    Source: Pfeuty 1970.
    """
    if n < 3 or not (np.isfinite([coupling, field]).all() and coupling >= 0 and field >= 0):
        raise ValueError(f"wanted at least 3 spins and J, h >= 0, got n = {n}, J = {coupling}, h = {field}")
    m = np.arange(n)
    k = 2 * np.pi * m / n if odd else (2 * m + 1) * np.pi / n
    modes = np.sqrt(np.maximum(coupling**2 + field**2 - 2 * coupling * field * np.cos(k), 0))
    if odd:
        modes[0] = coupling - field
    return -float(np.sum(modes))


def ring_gap(n: int, coupling: float = 1.0, field: float = 1.0) -> float:
    """The gap of a uniform ring of n spins: between the lowest energies of its two sectors of parity."""
    return ring_energy(n, coupling, field, odd=True) - ring_energy(n, coupling, field)


def ring_means(n: int, coupling: float = 1.0, field: float = 1.0) -> tuple[float, float]:
    """<X_i> and <Z_i Z_(i+1)> in the ground state of a uniform ring: -dE/dh / n and -dE/dJ / n in closed form."""
    ring_energy(n, coupling, field)
    k = (2 * np.arange(n) + 1) * np.pi / n
    modes = np.sqrt(coupling**2 + field**2 - 2 * coupling * field * np.cos(k))
    modes = np.where(modes > 0, modes, 1)
    return float(np.mean((field - coupling * np.cos(k)) / modes)), float(
        np.mean((coupling - field * np.cos(k)) / modes)
    )
