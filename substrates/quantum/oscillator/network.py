"""Quantum harmonic oscillators joined by springs: H = sum_i p_i^2/2m_i + x'Kx/2 - f'x, in Gaussian equilibrium."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates import arguments
from substrates.quantum.oscillator import build, pictures
from substrates.quantum.oscillator.closed_form import ClosedForm
from substrates.quantum.oscillator.fock import FockSpace, in_fock_space
from substrates.quantum.oscillator.modes import GaussianState, Modes, diagonal, diagonal_of, pack, unpack
from substrates.quantum.oscillator.stability import nearest_stable, require_stable
from substrates.quantum.oscillator.thermal import SingleOscillator, matrix_function, trace_of
from substrates.quantum.system import Contrasted
from substrates.solvers.spectra import eigh
from substrates.substrate import fixed
from substrates.wiring import Bonds, Graph, lattice_edges, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Drive = Literal["force", "anchor", "stiffness"]
Reading = Literal["mean", "moments"]


class QuantumOscillatorNetwork(Contrasted):
    """Quantum harmonic oscillators joined by springs: a Gaussian ground state, or thermal state, in closed form.

        H = sum_i p_i^2 / 2m_i + x'Kx/2 - f'x,    x'Kx = sum_i k_i x_i^2 + sum_ij k_ij (x_i - x_j)^2,

    each oscillator with one displacement x_i. The state is a Gaussian with mean <x> and covariance S = L L' of the
    positions, and the energy is its mean energy <H>, with the momenta as sharp as the uncertainty relation allows:

        E = 1/2 <x>'K<x> - f'<x> + 1/2 tr(K S) + hbar^2/8 tr(M^-1 S^-1),

    least in the ground state: <x> = K^-1 f, S = (hbar/2) M^-1/2 Omega^-1 M^-1/2 with Omega^2 = M^-1/2 K M^-1/2, where
    E_0 = (hbar/2) tr Omega - f'K^-1 f / 2. At a temperature T the last term becomes the least <p^2>/2m - T entropy for
    this S, the energy is the free energy and its minimum the Gibbs state. At hbar = 0 only means are left, an elastic
    network in one dimension, or classical thermal noise. A spring's energy is 1/2 [(<x_i> - <x_j>)^2 + Var(x_i - x_j)]
    per stiffness, measured as such; the second part is the zero-point motion.

    Inputs, multiplied by a constant gain to g, act on chosen oscillators, as `drive` says:
        "force": f_a += g_a. Means answer linearly; the covariance does not depend on the input.
        "anchor": the on-site spring is anchored at g_a, its energy k_a (x_a - g_a)^2 / 2: a force k_a g_a.
        "stiffness": the on-site stiffness is k_a e^(g_a). Means and covariances answer nonlinearly. Where no spring is
            negative every input leaves K positive definite.

    Outputs are <x_o>, or with `reading="moments"` <x_o> of all outputs followed by their <x_o^2>. A nudge by a cost of
    means is a force and changes no covariance; one by <x_o^2> is a stiffness: with `learning.PositionError`, which is
    <(x - y)^2>/2, K_oo += beta and f_o += beta y.

    Any consistent units, in which hbar has that of an action; hbar = 1 by default. Build one by `from_edges`,
    `from_networkx`, `chain`, `lattice` or `for_task`. Complex beta is followed at T = 0 only.

    Attributes:
        stiffness: k_ij of the springs, shape (m,); negative ones push apart.
        onsite_stiffness: k_i, shape (n,).
        bias_force: a trainable static force on every oscillator, shape (n,), or None.
        mass: m_i, shape (n,), positive; a constant.
        graph: which oscillators the springs join.
        inputs, outputs: the oscillators that are driven and read.
        drive: "force", "anchor" or "stiffness".
        reading: "mean" or "moments".
        hbar, temperature: constants, not negative.
        gain: what inputs are multiplied by.
        stiffness_floor, onsite_floor: the least that `constrained` allows of stiffnesses, and of the on-site ones above
            what negative springs use up.
        labels: of the oscillators, in their order, where the network was built from labels; None where they are
            numbers.

    The state is a `GaussianState`; `covariance` and `momentum_covariance` give its matrices.

    Source: Scellier 2024, arXiv 2406.00879, and Massar and Mognetti 2024, arXiv 2405.08467, for quantum equilibrium
    propagation; Audenaert, Eisert, Plenio and Werner 2002, quant-ph/0205025, for the ground states and their
    entanglement.
    """

    contrast_points: ClassVar[int] = 1
    solver: ClassVar[Any] = ClosedForm()

    stiffness: Float[Array, "springs"]
    onsite_stiffness: Float[Array, "n"]
    bias_force: Float[Array, "n"] | None
    mass: Float[Array, "n"] = fixed()
    graph: Graph = eqx.field(kw_only=True)
    inputs: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    outputs: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    drive: Drive = eqx.field(static=True, default="force")
    reading: Reading = eqx.field(static=True, default="mean")
    hbar: float = eqx.field(static=True, default=1.0)
    temperature: float = eqx.field(static=True, default=0.0)
    gain: float = eqx.field(static=True, default=1.0)
    stiffness_floor: Float[Array, ""] = fixed(kw_only=True)
    onsite_floor: Float[Array, ""] = fixed(kw_only=True)
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)

    @property
    def n(self) -> int:
        """How many oscillators there are."""
        return self.graph.n

    @property
    def single(self) -> SingleOscillator:
        """The formulas of one oscillator at this hbar and temperature."""
        return SingleOscillator(self.hbar, self.temperature)

    # the energy

    def energy(self, state: GaussianState, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        energy = self._elastic(state, state, x) - jnp.sum(self.total_bias(x) * state[0])
        if self.drive == "anchor":
            energy += self._anchored(x)
        return energy if self.single.sharp else energy + self._rest(unpack(state[1], self.n))

    def _elastic(self, first: GaussianState, second: GaussianState, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        """<x>'K<x>/2 + tr(K S)/2 of a state, as a bilinear form of two."""
        onsite, edges = self._onsite(x), self.graph.edges

        def form(one: Array, other: Array) -> Array:
            """Of displacements of all oscillators, a row each."""
            apart, others = (jnp.diff(taken(rows, edges))[..., 0] for rows in (one, other))
            return jnp.sum(apart * others @ self.stiffness) + jnp.sum(one * other @ onsite)

        if self.single.sharp:
            return form(first[0][None], second[0][None]) / 2
        factors = [unpack(packed, self.n).T for packed in (first[1], second[1])]
        if len(edges) <= 4 * self.n:
            return form(*(jnp.vstack([s[0], rows]) for s, rows in zip((first, second), factors, strict=True))) / 2
        matrix = Bonds(self.stiffness, self.graph).matrix()
        own = onsite + jnp.sum(matrix, axis=1)
        spread = jnp.sum(factors[0] * factors[1] @ own) - jnp.sum(factors[0] * (factors[1] @ matrix))
        return (form(first[0][None], second[0][None]) + spread) / 2

    def _rest(self, factor: Inexact[Array, "n n"]) -> Inexact[Array, ""]:
        """The energy of the momenta, less T times the entropy, of a covariance L L'."""
        if self.temperature == 0:
            return jnp.sum((self.hbar * self._inverse(factor)) ** 2) / 8
        weighted, single = jnp.sqrt(self.mass)[:, None] * factor, self.single
        return trace_of(single.rest, single.rest_slope, single.rest_curvature, weighted @ weighted.T)

    def _inverse(self, factor: Inexact[Array, "n n"]) -> Inexact[Array, "n n"]:
        """L^-1 M^(-1/2)."""
        mass = diagonal(self.mass**-0.5).astype(factor.dtype)
        return jax.lax.linalg.triangular_solve(factor, mass, left_side=True, lower=True)

    def force(self, state: GaussianState, x: Float[Array, "inputs"]) -> GaussianState:
        return self.force_under(state, self.stiffness_matrix(x), self.total_bias(x))

    def force_under(
        self, state: GaussianState, stiffness: Inexact[Array, "n n"], bias: Inexact[Array, "n"]
    ) -> GaussianState:
        """The force for a stiffness matrix K and static forces f: f - K <x>, and -dE/dL."""
        mean, packed = state
        if self.single.sharp:
            return GaussianState(bias - stiffness @ mean, packed)
        factor = unpack(packed, self.n)
        if self.temperature == 0:
            inverse = self._inverse(factor)
            turn = partial(jax.lax.linalg.triangular_solve, left_side=True, lower=True, transpose_a=True)
            rest = (self.hbar**2 / 4) * turn(factor, inverse @ inverse.T)
        else:
            root = jnp.sqrt(self.mass)[:, None]
            weighted = root * factor
            slope = matrix_function(self.single.rest_slope, self.single.rest_curvature, weighted @ weighted.T)
            rest = -2 * root * (slope @ weighted)
        return GaussianState(bias - stiffness @ mean, pack(rest - stiffness @ factor))

    def energy_under(
        self,
        pull: Float[Array, "outputs"],
        output: Float[Array, "outputs"],
        modes: Modes,
        balance: tuple[Array, Array, Array],
        x: Float[Array, "inputs"],
    ) -> Float[Array, ""]:
        """The energy of the equilibrium under a pull on the outputs, from its modes and its (stiffness, force, means).

        With the potential -<pull, output> of the pull it is the free energy of the modes less f'K^-1 f / 2.
        """
        _, force, mean = balance
        energy = pull @ output - 0.5 * force @ mean
        if self.drive == "anchor":
            energy += self._anchored(x)
        return energy if self.single.sharp else energy + jnp.sum(self.single.free_energy(modes.frequency))

    def apart(self, plus: GaussianState, minus: GaussianState, x: Float[Array, "inputs"]) -> PyTree:
        return jax.tree.map(jnp.subtract, plus, minus), jax.tree.map(jnp.add, plus, minus)

    def energy_apart(self, apart: PyTree, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        difference, both = apart
        return self._elastic(difference, both, x) - jnp.sum(self.total_bias(x) * difference.mean)

    def stiffness_matrix(self, x: Float[Array, "inputs"]) -> Inexact[Array, "n n"]:
        """K, with inputs that are stiffnesses."""
        matrix = Bonds(self.stiffness, self.graph).matrix()
        return diagonal(self._onsite(x) + jnp.sum(matrix, axis=1)) - matrix

    def total_bias(self, x: Float[Array, "inputs"]) -> Inexact[Array, "n"]:
        """f, the static forces with those of the inputs."""
        x = self._acting(x)
        force = jnp.zeros_like(self.onsite_stiffness) if self.bias_force is None else self.bias_force
        if self.drive == "stiffness":
            return force
        return force + (x if self.drive == "force" else x * taken(self.onsite_stiffness, self._driven)) @ self._rows

    def _onsite(self, x: Float[Array, "inputs"]) -> Inexact[Array, "n"]:
        x = self._acting(x)
        if self.drive != "stiffness":
            return self.onsite_stiffness
        return self.onsite_stiffness * jnp.exp(x @ self._rows)

    def _anchored(self, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        """What inputs that are anchors add to the energy: sum_a k_a g_a^2 / 2."""
        return 0.5 * jnp.sum(taken(self.onsite_stiffness, self._driven) * self._acting(x) ** 2)

    @property
    def _driven(self) -> np.ndarray:
        return np.asarray(self.inputs, int)

    @property
    def _rows(self) -> Any:
        """What puts numbers of the inputs at their oscillators."""
        return np.eye(self.n, dtype=self.onsite_stiffness.dtype)[self._driven]

    def _acting(self, x: Any) -> Inexact[Array, "inputs"]:
        """The inputs as they act, with their gain."""
        x = jnp.asarray(x)
        dtype = self.onsite_stiffness.dtype
        return self.gain * (x if jnp.iscomplexobj(x) else x.astype(dtype))

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per oscillator, such as `state.mean`; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    # the contract

    @property
    def input_size(self) -> int:
        return len(self.inputs)

    def initial_state(self, x: Float[Array, "inputs"]) -> GaussianState:
        """Every oscillator alone in the middle, with its neighbours held."""
        mean = jnp.zeros(self.n, self.onsite_stiffness.dtype)
        if self.single.sharp:
            self._acting(x)
            return GaussianState(mean, jnp.zeros(0, mean.dtype))
        squared = (diagonal_of(self.stiffness_matrix(x)) / self.mass).real
        frequency = jnp.sqrt(jnp.maximum(squared, jnp.finfo(mean.dtype).tiny))
        spread = jnp.sqrt(self.single.variance(frequency) / self.mass.real)
        return GaussianState(mean, pack(diagonal(spread.astype(mean.dtype))))

    def read(self, state: GaussianState, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        nodes = np.asarray(self.outputs, int)
        mean = taken(state[0], nodes)
        if self.reading == "mean":
            return mean
        variance = 0 if self.single.sharp else jnp.sum(taken(unpack(state[1], self.n).T, nodes) ** 2, axis=0)
        return jnp.concatenate([mean, mean**2 + variance])

    why_not_holomorphic: ClassVar[str] = (
        "it is followed at temperature 0 only, as the entropy is a function of eigenvalues"
    )

    @property
    def holomorphic(self) -> bool:  # type: ignore[override]
        """At temperature 0 only: the entropy is a function of eigenvalues."""
        return self.temperature == 0

    def force_scale(self, state: GaussianState, x: Float[Array, "inputs"]) -> GaussianState:
        """The sizes of the forces that meet at each oscillator, those of the springs over the means and spreads; for
        the entries of a factor the forces at the oscillator of its row.
        """
        return self.scale_under(state, self.stiffness_matrix(x), self.total_bias(x))

    def scale_under(
        self, state: GaussianState, stiffness: Inexact[Array, "n n"], bias: Inexact[Array, "n"]
    ) -> GaussianState:
        """`force_scale` for a stiffness matrix K and static forces f."""
        meeting = lambda size: jnp.abs(stiffness) @ size + jnp.abs(bias)
        mean, factor = state
        size = jnp.abs(mean)
        if self.single.sharp:
            return GaussianState(meeting(size), jnp.zeros(factor.shape, size.dtype))
        size += jnp.sqrt(jnp.sum(jnp.abs(unpack(factor, self.n)) ** 2, axis=1))
        at = meeting(size)
        return GaussianState(at, taken(at, np.tril_indices(self.n)[0]))

    def constrained(self) -> Self:
        """The nearest network with stiffnesses at or above their floors whose matrix K is positive definite.

        By Gershgorin's circles: k_i >= onsite_floor + 2 sum_j max(0, -k_ij); see `nearest_stable`.
        """
        return self._stable(None)

    def nearest_physical(self, compliance: Self) -> Self:
        return self._stable((compliance.stiffness, compliance.onsite_stiffness))

    def _stable(self, compliance: tuple[Array, Array] | None) -> Self:
        floors = self.stiffness_floor, self.onsite_floor
        stiffness, onsite = nearest_stable(
            self.stiffness, self.onsite_stiffness, self.graph.edges, *floors, compliance=compliance
        )
        return eqx.tree_at(lambda net: (net.stiffness, net.onsite_stiffness), self, (stiffness, onsite))

    # ways to build one

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        n: int | None = None,
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        stiffness: Any = 1.0,
        onsite_stiffness: Any = 1.0,
        bias_force: Any = None,
        mass: Any = 1.0,
        drive: Drive = "force",
        reading: Reading = "mean",
        hbar: float = 1.0,
        temperature: float = 0.0,
        gain: float = 1.0,
        stiffness_floor: float | None = None,
        onsite_floor: float | None = None,
    ) -> Self:
        """A network on any graph.

        Args:
            edges: springs between two oscillators each, integers of shape (m, 2).
            n: the number of oscillators; by default as many as are mentioned.
            inputs: oscillators that the numbers of x drive, as `drive` says.
            outputs: oscillators that are read; they may be inputs, too.
            stiffness: k_ij, shape (m,) or one number.
            onsite_stiffness: k_i, shape (n,) or one number.
            bias_force: a trainable static force, shape (n,) or one number; None for none.
            mass: m_i, shape (n,) or one number.
            drive: "force", "anchor" or "stiffness".
            reading: "mean" or "moments".
            hbar, temperature: constants, 0 or more.
            gain: what inputs are multiplied by.
            stiffness_floor, onsite_floor: the least that training may reach; by default a thousandth of the smallest,
                and no floor for springs where some are negative.

        Raises:
            ValueError: for what has no equilibrium, and arguments of the wrong kind; the message says what to change.
        """
        sized = (onsite_stiffness, bias_force, mass)
        graph = Graph.naming(edges, n, {"inputs": inputs, "outputs": outputs}, sized, "oscillator")
        parameters = build.parameters(graph, stiffness, *sized)
        net = cls(
            **parameters,
            graph=graph,
            inputs=arguments.different_nodes("inputs", inputs, graph.n, "oscillator"),
            outputs=arguments.different_nodes("outputs", outputs, graph.n, "oscillator"),
            drive=arguments.one_of("drive", drive, Drive),
            reading=arguments.one_of("reading", reading, Reading),
            hbar=build.not_negative("hbar", hbar),
            temperature=build.not_negative("temperature", temperature),
            gain=build.finite("gain", gain),
            stiffness_floor=build.floor_of("stiffness", stiffness_floor, parameters["stiffness"]),
            onsite_floor=build.floor_of("onsite", onsite_floor, parameters["onsite_stiffness"]),
        )
        if not net.outputs:
            raise ValueError("outputs: wanted at least one oscillator to read, got none")
        require_stable(np.asarray(_stiffness_at_rest(net), float))
        return net

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        inputs: Sequence[Hashable],
        outputs: Sequence[Hashable],
        stiffness: Any = "stiffness",
        **options: Any,
    ) -> Self:
        """The network with a spring on every edge of a NetworkX graph; oscillators are numbered in the graph's order.

        Args:
            graph: undirected, without parallel edges.
            inputs, outputs: labels of nodes.
            stiffness: the edge attribute that holds the stiffness, or a number or array in the order of `graph.edges`.
            options: the others of `from_edges`; what every oscillator has is one number, an array in the order of
                `graph.nodes`, {label: number}, or the name of a node attribute.

        Raises:
            ValueError: for a label that is no node, an edge without the attribute, and whatever `from_edges` refuses.
        """
        of = {"edges": ("stiffness",), "nodes": ("onsite_stiffness", "bias_force", "mass")}
        ends = {"inputs": inputs, "outputs": outputs}
        return arguments.on_graph(cls.from_edges, graph, stiffness=stiffness, **of, **ends, **options)

    @classmethod
    def lattice(cls, shape: int | Sequence[int], *, periodic: bool = False, **options: Any) -> Self:
        """Oscillators on a grid of any dimension, numbered in C order, with springs between nearest neighbours.

        Args:
            shape: how many oscillators along each axis.
            periodic: whether all axes close on themselves.
            options: those of `from_edges`.
        """
        sides = arguments.sides(shape, periodic, "oscillator")
        return cls.from_edges(lattice_edges(sides, periodic), math.prod(sides), **options)

    @classmethod
    def chain(cls, n: int, *, periodic: bool = False, **options: Any) -> Self:
        """n oscillators in a row; the options are those of `from_edges`."""
        return cls.lattice((n,), periodic=periodic, **options)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """Inputs as forces on their own oscillators, joined by springs of either sign to all the others; outputs are
        means.

        The answer is linear: softmax regression by displacements with the cross-entropy, which is the default; with the
        squared error linear regression, which masks a class between two others. Hidden oscillators (`sizes`, by default
        none) add springs and no nonlinearity. `drive="stiffness"` would be nonlinear, at the price of one eigenvalue
        problem per example.
        """
        return cls.from_edges(**build.for_task(n_inputs, n_outputs, sizes, key))

    def training_defaults(self) -> dict[str, Any]:
        return {
            "beta": 0.1,
            "cost": "cross-entropy",
            "epochs": 60,
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 0.02,
            "decay": 0.95,
            "bench": {
                "epsilon": {"stiffness": 2e-5, "onsite_stiffness": 2e-5, "bias_force": 2e-3},
                "beta": 60.0,
                "epochs": 150,
                "cost": "cross-entropy",
            },
        }

    # the physics

    def normal_modes(self, x: Float[Array, "inputs"] | None = None) -> Modes:
        """The frequencies and shapes of the normal modes; without an input those at x = 0."""
        return Modes.of(self.stiffness_matrix(self._input_or_rest(x)), self.mass)

    def free_energy(self, x: Float[Array, "inputs"] | None = None) -> Float[Array, ""]:
        """The energy of the free equilibrium: E_0 = (hbar/2) tr Omega - f'K^-1 f / 2, and at T > 0 -T log Z."""
        at = self._input_or_rest(x)
        modes, force = self.normal_modes(at), self.total_bias(at)
        energy = jnp.sum(self.single.free_energy(modes.frequency)) - 0.5 * force @ modes.compliance(force)
        if self.drive == "anchor":
            energy += self._anchored(at)
        return energy

    def covariance(self, state: GaussianState) -> Inexact[Array, "n n"]:
        """Cov_x = L L'."""
        if self.single.sharp:
            return jnp.zeros((self.n, self.n), state[0].dtype)
        factor = unpack(state[1], self.n)
        return factor @ factor.T

    def momentum_covariance(self, state: GaussianState) -> Float[Array, "n n"]:
        """Cov_p: hbar^2/4 Cov_x^-1 in the ground state; at T > 0 that of least free energy for this Cov_x."""
        root = jnp.sqrt(self.mass)
        if self.single.sharp:
            return jnp.zeros((self.n, self.n), state[0].dtype)
        weighted = root[:, None] * self.covariance(state) * root[None]
        variances, vectors = eigh(weighted)
        inner = (vectors * (self.single.frequency(variances) ** 2 * variances)[None]) @ vectors.T
        return root[:, None] * inner * root[None]

    def logarithmic_negativity(
        self, state: GaussianState, group: Sequence[Hashable], other: Sequence[Hashable] | None = None
    ) -> Float[Array, ""]:
        """E_N = sum_k max(0, -log(2 nu_k / hbar)) between two groups of oscillators, in nats (log 2 of them are a bit).

        nu_k^2 are the eigenvalues of Cov_x Cov_p once the momenta of the second group are reversed, which is partial
        transposition. It is zero for separable states of one oscillator with any number of others, and never above zero
        without entanglement.

        Args:
            state: one of its states.
            group, other: oscillators, by their labels where the network was built from labels; `other` is by default
                all that are not in `group`. What is in neither is traced out.

        Raises:
            ValueError: for classical oscillators, groups that are empty, overlap, repeat or name no oscillator.

        Source: Vidal and Werner 2002, quant-ph/0102117; Audenaert, Eisert, Plenio and Werner 2002, quant-ph/0205025.
        """
        if self.hbar == 0:
            raise ValueError("hbar: wanted a positive number, got 0; classical oscillators are not entangled")
        if self.labels is not None:
            numbers = lambda name, nodes: [arguments.number_of_node(name, node, self.n, self.labels) for node in nodes]
            group, other = numbers("group", group), None if other is None else numbers("other", other)
        first = np.asarray(group, int).ravel()
        second = np.setdiff1d(np.arange(self.n), first) if other is None else np.asarray(other, int).ravel()
        both, n = np.concatenate([first, second]), self.n
        apart = min(len(first), len(second)) > 0 and len(np.unique(both)) == len(both)
        if not apart or both.min() < 0 or both.max() >= n:
            raise ValueError(
                f"group, other: wanted two groups of different oscillators from 0 to {n - 1}, none of them empty, got "
                f"{list(group)} and {second.tolist()}"
            )
        part = np.ix_(both, both)
        sign = jnp.concatenate([jnp.ones(len(first)), -jnp.ones(len(second))]).astype(self.mass.dtype)
        root = jnp.linalg.cholesky(self.covariance(state)[part])
        reversed_momenta = sign[:, None] * self.momentum_covariance(state)[part] * sign[None]
        squared = eigh(root.T @ reversed_momenta @ root)[0]
        return jnp.sum(jnp.maximum(0, -0.5 * jnp.log(4 * squared / self.hbar**2)))

    def to_qutip(self, levels: int, x: Float[Array, "inputs"] | None = None) -> FockSpace:
        """H and its equilibrium state in QuTiP, each oscillator with its lowest levels at the frequency sqrt(K_ii/m_i).

        Levels are those about the equilibrium positions, so that forces need no more of them; what is cut off falls
        exponentially in `levels`.

        Args:
            levels: of each oscillator, at least 2.
            x: the input; None means x = 0.

        Raises:
            ValueError: for classical oscillators, fewer than 2 levels, a Hilbert space of more than 20,000 dimensions.
        """
        at = self._input_or_rest(x)
        constant = self._anchored(at) if self.drive == "anchor" else 0.0
        values = self.stiffness_matrix(at), self.total_bias(at), self.mass, constant
        return in_fock_space(*values, self.hbar, self.temperature, levels)

    def draw(
        self, state: GaussianState | None = None, x: Any = None, ax: Axes | None = None, positions: Any = None
    ) -> Axes:
        """Draws oscillators coloured by <x>, with areas proportional to Var x, and springs as wide as they are stiff.

        Springs that push apart, of negative stiffness, are dashed.

        Args:
            state: a state; None with an x (or without inputs) settles the network, else it is drawn bare.
            x: the input, shape (inputs,).
            ax: where to draw; None opens a new figure.
            positions: (n, 2) places of the oscillators; None finds some, see `substrates.pictures.places`.

        Raises:
            ValueError: for positions of another shape.
        """
        if state is None and (x is not None or not self.inputs):
            state = self.relax(jnp.asarray(self._input_or_rest(x), self.stiffness.dtype)).state
        spread = None if state is None else (state.mean, jnp.diagonal(self.covariance(state)))
        roles = {"inputs": self.inputs, "outputs": self.outputs}
        return pictures.network(self.n, self.graph.edges, self.stiffness, spread, roles, ax, positions)

    def at_temperature(self, temperature: float) -> Self:
        """The same oscillators in their Gibbs state at a temperature T >= 0, in units of energy."""
        return dataclasses.replace(self, temperature=build.not_negative("temperature", temperature))

    def with_hbar(self, hbar: float) -> Self:
        """The same oscillators under another constant hbar >= 0; at 0 they are classical."""
        return dataclasses.replace(self, hbar=build.not_negative("hbar", hbar))

    def _input_or_rest(self, x: Any) -> Any:
        return jnp.zeros(len(self.inputs), self.onsite_stiffness.dtype) if x is None else x


@eqx.filter_jit
def _stiffness_at_rest(net: QuantumOscillatorNetwork) -> Inexact[Array, "n n"]:
    return net.stiffness_matrix(net._input_or_rest(None))
