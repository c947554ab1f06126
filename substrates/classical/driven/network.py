"""Linear networks driven at one or several frequencies: masses, springs and dampers, or circuits of R, L and C."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.classical.driven import build, pictures
from substrates.classical.driven.direct_solve import Balance, DirectSolve, Motions
from substrates.substrate import Substrate, fixed
from substrates.wiring import Bonds, Graph, lattice_edges, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Drive = Literal["amplitudes", "quadratures", "chord"]
Reading = Literal["power", "quadratures"]


class DrivenNetwork(Substrate):
    """A linear network with damping in the steady motion that periodic drives sustain: x_i(t) = Re X_i e^(i omega t).

        Z(omega) X = f,    Z = -omega^2 M + i omega G + K,    X'ZX = sum_ij z_ij (X_i - X_j)^2 + sum_i z_i X_i^2,

    with z = k + i omega g - omega^2 m of every edge and every node. As a circuit X are the amplitudes of voltages, k
    inverse inductances, g conductances, m capacitances, and f = i omega I those of currents that are driven in. Z is
    symmetric, for the elements are reciprocal, and not Hermitian, for they take up energy. So the motion is no minimum
    of an energy that has a minimum; it makes

        E = sum_omega Re[X'ZX/2 - f'X],

    stationary, transposes without conjugates: a saddle over the real and the imaginary parts A, B of X = A + iB, for E
    is harmonic in them. There dE/dA = Re(ZX - f) and dE/dB = -Im(ZX - f). A nudge beta C drives the outputs with
    -beta (dC/dA - i dC/dB), the error phase-conjugated, and equilibrium propagation holds as at any stationary point:
    the observables are Re (X_i - X_j)^2/2 of a spring, -omega^2 Re (X_i - X_j)^2/2 of a mass, omega Re i (X_i -
    X_j)^2/2 of a damper, and not the powers |X_i - X_j|^2 that they store and take up. Where amplitudes are read, a
    nudge of a constant pull (`linearised`) makes motions that are linear in beta, and the centred contrast is exact at
    any beta. At a saddle nudges of either sign do not bound the cost.

    Inputs, multiplied by a constant gain, are the forces on chosen nodes, as `drive` says:
        "amplitudes": x of shape (frequencies, inputs), all in phase: the spectrum of a sound, say.
        "quadratures": x of shape (frequencies, 2, inputs), real and imaginary parts.
        "chord": x of shape (inputs,), the same amplitude at all frequencies, in phase.

    Outputs are, as `reading` says:
        "power": the mean square <x_o(t)^2> = sum_omega |X_o|^2 / 2 of every output, shape (outputs,).
        "quadratures": the real parts of all outputs, then the imaginary ones, frequency by frequency, flat.

    SI units: k in N/m (1/H), g in N s/m (S), m in kg (F), frequencies in rad/s, amplitudes in m (V). Build one by
    `from_edges`, `from_networkx`, `lattice` or `for_task`.

    Attributes:
        stiffness, damping: k and g of every edge, shape (m,), not negative.
        inertance: m of every edge, shape (m,): an inerter, or a capacitor between nodes; None for none.
        onsite_stiffness, onsite_damping, mass: k, g and m of every node to ground, shape (n,), not negative.
        bias_force: a trainable drive that does not depend on x, real and imaginary parts, shape (frequencies, 2, n), or
            None.
        frequencies: omega, shape (frequencies,); constants.
        graph: which nodes the edges join.
        inputs, outputs: the nodes that are driven and read.
        drive, reading: see above.
        gain: what inputs are multiplied by.
        damping_floor: the least damping of a node that `constrained` allows; above 0 no motion is undamped.
        labels: of the nodes, in their order, where the network was built from labels; None where they are numbers.

    The state holds A and B of all nodes at every frequency, shape (frequencies, 2, n); `amplitudes` gives X.

    Source: derived for this project from the theorem of Scellier and Bengio 2017, arXiv 1602.05179, at stationary
    points; cf. Berneman and Hexner 2025, arXiv 2506.20402, whose elastic networks tell sounds apart.
    """

    contrast_points: ClassVar[int] = 1
    solver: ClassVar[Any] = DirectSolve()

    stiffness: Float[Array, "edges"]
    damping: Float[Array, "edges"]
    inertance: Float[Array, "edges"] | None
    onsite_stiffness: Float[Array, "n"]
    onsite_damping: Float[Array, "n"]
    mass: Float[Array, "n"]
    bias_force: Float[Array, "frequencies 2 n"] | None
    frequencies: Float[Array, "frequencies"] = fixed(kw_only=True)
    graph: Graph = eqx.field(kw_only=True)
    inputs: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    outputs: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    drive: Drive = eqx.field(static=True, default="amplitudes")
    reading: Reading = eqx.field(static=True, default="power")
    gain: float = eqx.field(static=True, default=1.0)
    damping_floor: Float[Array, ""] = fixed(kw_only=True)
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)

    @property
    def n(self) -> int:
        """How many nodes there are."""
        return self.graph.n

    @property
    def reads_power(self) -> bool:
        """Whether outputs are mean squares, rather than amplitudes."""
        return self.reading == "power"

    # the energy

    def energy(self, state: Float[Array, "frequencies 2 n"], x: Float[Array, "..."]) -> Inexact[Array, ""]:
        real, imaginary = state[:, 0], state[:, 1]
        force = self.force_amplitudes(x)
        work = jnp.sum(force[:, 0] * real - force[:, 1] * imaginary)
        apart = lambda part: jnp.diff(taken(part, self.graph.edges))[..., 0]
        between = self._stored(apart(real), apart(imaginary), self.stiffness, self.damping, self.inertance)
        return between + self._stored(real, imaginary, self.onsite_stiffness, self.onsite_damping, self.mass) - work

    def _stored(self, real: Array, imaginary: Array, k: Array, g: Array, m: Array | None) -> Inexact[Array, ""]:
        """Re z X^2/2 of all frequencies and elements, z = k + i omega g - omega^2 m, X = real + i imaginary."""
        square, mixed, omega = (real**2 - imaginary**2) / 2, real * imaginary, self.frequencies
        energy = jnp.sum(square @ k) - omega @ (mixed @ g)
        return energy if m is None else energy - omega**2 @ (square @ m)

    def balance(self, x: Float[Array, "..."]) -> Balance:
        """dE/dstate = A state - c of every frequency; A = [[Re Z, -Im Z], [-Im Z, -Re Z]], c = (Re f, -Im f)."""

        def matrix(between: Array | None, own: Array) -> Array:
            if between is None:
                return jnp.diag(own)
            bonds = Bonds(between, self.graph).matrix()
            return jnp.diag(own + jnp.sum(bonds, axis=1)) - bonds

        omega = self.frequencies[:, None, None]
        k = matrix(self.stiffness, self.onsite_stiffness)[None]
        g = omega * matrix(self.damping, self.onsite_damping)[None]
        m = omega**2 * matrix(self.inertance, self.mass)[None]
        blocks = lambda a, b, c: jnp.concatenate(
            [jnp.concatenate([a, b], axis=2), jnp.concatenate([b, c], axis=2)], axis=1
        )
        sizes, across, force = jnp.abs(k) + jnp.abs(m), jnp.abs(g), self.force_amplitudes(x)
        drive = jnp.concatenate([force[:, 0], -force[:, 1]], axis=1)
        return Balance(blocks(k - m, -g, m - k), blocks(sizes, across, sizes), drive)

    def force_amplitudes(self, x: Float[Array, "..."]) -> Inexact[Array, "frequencies 2 n"]:
        """f, the forces of the inputs and those that do not depend on them, real and imaginary parts."""
        dtype = self.onsite_stiffness.dtype
        x = jnp.asarray(x)
        x = self.gain * (x if jnp.iscomplexobj(x) else x.astype(dtype)).reshape(self.x_shape)
        x = x @ np.eye(self.n, dtype=dtype)[np.asarray(self.inputs, int)]
        if self.drive != "quadratures":
            x = jnp.broadcast_to(x, (len(self.frequencies), self.n))
            x = jnp.stack([x, jnp.zeros_like(x)], axis=1)
        return x if self.bias_force is None else x + self.bias_force

    # the contract

    @property
    def input_size(self) -> int:
        return math.prod(self.x_shape)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of x, as `drive` says; x may also come flat."""
        count = len(self.inputs)
        shapes = {"amplitudes": (len(self.frequencies), count), "quadratures": (len(self.frequencies), 2, count)}
        return shapes.get(self.drive, (count,))

    def initial_state(self, x: Float[Array, "..."]) -> Float[Array, "frequencies 2 n"]:
        """At rest."""
        return jnp.zeros((len(self.frequencies), 2, self.n), self.onsite_stiffness.dtype)

    def read(self, state: Float[Array, "frequencies 2 n"], x: Float[Array, "..."]) -> Inexact[Array, "outputs"]:
        shown = taken(state, np.asarray(self.outputs, int))
        return jnp.sum(shown**2, axis=(0, 1)) / 2 if self.reads_power else shown.ravel()

    def force_scale(
        self, state: Float[Array, "frequencies 2 n"], x: Float[Array, "..."]
    ) -> Float[Array, "frequencies 2 n"]:
        """The sizes of the forces of springs, masses, dampers and drives that meet at each node; at a resonance those
        of springs and masses cancel.
        """
        return self.balance(x).meeting(state.reshape(len(state), -1)).reshape(state.shape)

    def constrained(self) -> Self:
        """The nearest passive network: no element is negative, and nodes are damped at least by `damping_floor`."""
        return dataclasses.replace(
            self,
            stiffness=jnp.maximum(self.stiffness, 0),
            damping=jnp.maximum(self.damping, 0),
            inertance=None if self.inertance is None else jnp.maximum(self.inertance, 0),
            onsite_stiffness=jnp.maximum(self.onsite_stiffness, 0),
            onsite_damping=jnp.maximum(self.onsite_damping, self.damping_floor),
            mass=jnp.maximum(self.mass, 0),
        )

    def undecided(self) -> str:
        """Whether no stationary motion exists."""
        if not bool(_singular(self)):
            return ""
        return (
            "The network resonates at one of its frequencies without damping, so that no amplitude is large enough and "
            "no stationary motion exists: damp its nodes (onsite_damping), or drive it at another frequency"
        )

    # ways to build one

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        n: int | None = None,
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        frequencies: Any,
        stiffness: Any = 1.0,
        damping: Any = 0.0,
        inertance: Any = None,
        onsite_stiffness: Any = 0.0,
        onsite_damping: Any = 0.1,
        mass: Any = 1.0,
        bias_force: Any = None,
        drive: Drive = "amplitudes",
        reading: Reading = "power",
        gain: float = 1.0,
        damping_floor: float | None = None,
    ) -> Self:
        """A network on any graph.

        Args:
            edges: pairs of nodes that a spring, a damper and an inerter join in parallel, integers of shape (m, 2).
            n: the number of nodes; by default as many as are mentioned.
            inputs: nodes that the numbers of x drive, as `drive` says.
            outputs: nodes that are read, as `reading` says; they may be inputs, too.
            frequencies: omega, rad/s, different positive numbers of shape (frequencies,), or one.
            stiffness, damping: of every edge, shape (m,) or one number.
            inertance: of every edge, shape (m,) or one number; None for none.
            onsite_stiffness, onsite_damping, mass: of every node to ground, shape (n,) or one number.
            bias_force: a trainable drive, shape (frequencies, 2, n), or one number in phase everywhere; None for none.
            drive: "amplitudes", "quadratures" or "chord".
            reading: "power" or "quadratures".
            gain: what inputs are multiplied by.
            damping_floor: the least damping of a node in training; by default a thousandth of the smallest.

        Raises:
            ValueError: for negative elements, and arguments of the wrong kind; the message says what to change.
        """
        sized = (onsite_stiffness, onsite_damping, mass)
        graph = Graph.naming(edges, n, {"inputs": inputs, "outputs": outputs}, sized)
        omega = build.frequencies(frequencies)
        between = {"stiffness": stiffness, "damping": damping, "inertance": inertance}
        own = {"onsite_stiffness": onsite_stiffness, "onsite_damping": onsite_damping, "mass": mass}
        elements = build.elements(graph, between, own, omega.dtype)
        net = cls(
            **elements,
            bias_force=build.bias(bias_force, (len(omega), 2, graph.n), omega.dtype),
            frequencies=omega,
            graph=graph,
            inputs=arguments.different_nodes("inputs", inputs, graph.n),
            outputs=arguments.different_nodes("outputs", outputs, graph.n),
            drive=arguments.one_of("drive", drive, Drive),
            reading=arguments.one_of("reading", reading, Reading),
            gain=build.gain(gain),
            damping_floor=build.damping_floor(damping_floor, elements["onsite_damping"]),
        )
        if not net.outputs:
            raise ValueError("outputs: wanted at least one node to read, got none")
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
        """The network with elements on every edge of a NetworkX graph; nodes are numbered in the graph's order.

        Args:
            graph: undirected, without parallel edges.
            inputs, outputs: labels of nodes.
            stiffness: the edge attribute that holds the stiffness, or a number or array in the order of `graph.edges`.
            options: the others of `from_edges`; what every edge has may be the name of an edge attribute, what every
                node has that of a node attribute or {label: number}.

        Raises:
            ValueError: for a label that is no node, an edge without the attribute, and whatever `from_edges` refuses.
        """
        of = {"edges": ("stiffness", "damping", "inertance"), "nodes": ("onsite_stiffness", "onsite_damping", "mass")}
        ends = {"inputs": inputs, "outputs": outputs}
        return arguments.on_graph(cls.from_edges, graph, stiffness=stiffness, **of, **ends, **options)

    @classmethod
    def lattice(cls, shape: int | Sequence[int], *, periodic: bool = False, **options: Any) -> Self:
        """Nodes on a grid of any dimension, numbered in C order, nearest neighbours joined.

        Args:
            shape: how many nodes along each axis.
            periodic: whether all axes close on themselves.
            options: those of `from_edges`.
        """
        sides = arguments.sides(shape, periodic)
        return cls.from_edges(lattice_edges(sides, periodic), math.prod(sides), **options)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """Inputs as forces on their own nodes, in phase at two frequencies, beside a trainable constant drive; joined
        to all others; outputs are mean squares.

        <x_o^2> = sum_omega |h_o0 + sum_a h_oa x_a|^2 / 2 is a quadratic form of the inputs, which the network shapes by
        its resonances; with the cross-entropy the default. Hidden nodes are `sizes`, by default twice the outputs.
        """
        return cls.from_edges(**build.for_task(n_inputs, n_outputs, sizes, key))

    def training_defaults(self) -> dict[str, Any]:
        return {
            "beta": 0.05,
            "cost": "cross-entropy",
            "epochs": 60,
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 0.02,
            "decay": 0.97,
        }

    # the physics

    def amplitudes(self, state: Float[Array, "frequencies 2 n"]) -> Complex[Array, "frequencies n"]:
        """X = A + iB of every node at every frequency."""
        return jax.lax.complex(state[:, 0], state[:, 1])

    def dissipated(
        self, state: Float[Array, "frequencies 2 n"]
    ) -> tuple[Float[Array, "frequencies edges"], Float[Array, "frequencies n"]]:
        """The mean power omega^2 g |X_i - X_j|^2 / 2 that dampers of edges, and of nodes, take up, watts (with currents
        as f / i omega; as a circuit g |V_i - V_j|^2 / 2 is this over omega^2). It is not what learning measures.
        """
        apart = jnp.diff(taken(state, self.graph.edges))[..., 0]
        omega = self.frequencies[:, None]
        power = lambda size, g: omega**2 * g[None] * jnp.sum(size**2, axis=1) / 2
        return power(apart, self.damping), power(state, self.onsite_damping)

    def supplied(self, state: Float[Array, "frequencies 2 n"], x: Float[Array, "..."]) -> Float[Array, "frequencies"]:
        """The mean power Re(conj(f) i omega X)/2 that drives give off at every frequency, watts."""
        force = self.force_amplitudes(x)
        return self.frequencies * jnp.sum(force[:, 1] * state[:, 0] - force[:, 0] * state[:, 1], axis=1) / 2

    def at_frequencies(self, frequencies: Any) -> Self:
        """The same elements at other frequencies, rad/s: a resonance curve is one relaxation.

        Raises:
            ValueError: for frequencies that are not positive and different, and beside a `bias_force`, which has its
                own.
        """
        if self.bias_force is not None:
            raise ValueError("frequencies: wanted a network without bias_force, which belongs to its frequencies")
        omega = build.frequencies(frequencies).astype(self.frequencies.dtype)
        return dataclasses.replace(self, frequencies=omega)

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per node; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    def draw(
        self,
        state: Float[Array, "frequencies 2 n"] | None = None,
        x: Float[Array, "..."] | None = None,
        ax: Axes | None = None,
        positions: Any = None,
        frequency: int = 0,
    ) -> Axes:
        """Draws nodes with areas proportional to |X|^2 and coloured by the phase of X at one frequency.

        Args:
            state: a state; None with an x settles the network, without one it is drawn bare.
            x: the input.
            ax: where to draw; None opens a new figure.
            positions: (n, 2) places of the nodes; None finds some, see `substrates.pictures.places`.
            frequency: which one, a number from 0.

        Raises:
            ValueError: for positions of another shape, and for a frequency that there is not.
        """
        if not 0 <= frequency < len(self.frequencies):
            raise ValueError(f"frequency: wanted a number from 0 to {len(self.frequencies) - 1}, got {frequency}")
        if state is None and x is not None:
            state = self.relax(x).state
        shown = None if state is None else self.amplitudes(state)[frequency]
        roles = {"inputs": self.inputs, "outputs": self.outputs}
        return pictures.network(self.n, self.graph.edges, self.stiffness, shown, roles, ax, positions)


@eqx.filter_jit
def _singular(net: DrivenNetwork) -> Array:
    return Motions.of(net.balance(jnp.zeros(net.x_shape, net.onsite_stiffness.dtype)).matrices).singular
