"""Networks of an activator and an inhibitor that react at nodes and diffuse along edges (FitzHugh and Nagumo)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.classical.activator_inhibitor import build, pictures
from substrates.skew_gradient import SkewGradient
from substrates.substrate import fixed
from substrates.wiring import Bonds, Graph, lattice_edges, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Concentrations(NamedTuple):
    """The activator u and the inhibitor v of every node, each of shape (n,)."""

    activator: Inexact[Array, "n"]
    inhibitor: Inexact[Array, "n"]


class ActivatorInhibitor(SkewGradient):
    """An activator u and an inhibitor v at every node of a graph, which react there and diffuse along the edges:

        du_i/dt = a_i u_i - u_i^3 - c_i v_i + b_i + x_i + sum_j d_ij (u_j - u_i),
        dv_i/dt = c_i u_i - g_i v_i + sum_j D_ij (v_j - v_i),

    the equations of FitzHugh and Nagumo. With Q = 1 on u and -1 on v they are ds/dt = -Q grad Phi of

        Phi = sum_i [u_i^4/4 - a_i u_i^2/2 - (b_i + x_i) u_i + c_i u_i v_i - g_i v_i^2/2]
              + sum_ij [d_ij (u_i - u_j)^2 - D_ij (v_i - v_j)^2]/2:

    u goes down Phi and v goes up. Rest is a saddle of Phi, stable or not; where the inhibitor spreads faster it may be
    a pattern (Turing). Where no gain is above 0 the flow contracts, for c turns and neither holds nor drives: there is
    one rest, and it is stable; above, learning may make the system oscillate, which a strict rule refuses. Outputs are
    u of chosen nodes. Units are those of one another: concentrations, and rates per unit of time. Build one by
    `from_edges`, `from_networkx`, `lattice` or `for_task`.

    Attributes:
        activator_diffusion, inhibitor_diffusion: d and D of every edge, shape (m,), not negative.
        gain: a of every node, shape (n,): how fast the activator makes more of itself.
        coupling: c of every node, shape (n,).
        decay: g of every node, shape (n,), positive.
        bias: b of every node, shape (n,).
        graph: which nodes the edges join.
        inputs, outputs: the nodes that x feeds and that are read.
        decay_floor, gain_ceiling: the least decay and the largest gain that `constrained` allows.
        labels: of the nodes, in their order, where the network was built from labels; None where they are numbers.

    The state is `Concentrations`. Bounds of the cost by nudges of either sign do not hold; see `SkewGradient`.

    Source: FitzHugh 1961; Nagumo, Arimoto and Yoshizawa 1962; Turing 1952; for learning 2026, arXiv 2605.21568.
    """

    contrast_points: ClassVar[int] = 1

    activator_diffusion: Float[Array, "edges"]
    inhibitor_diffusion: Float[Array, "edges"]
    gain: Float[Array, "n"]
    coupling: Float[Array, "n"]
    decay: Float[Array, "n"]
    bias: Float[Array, "n"]
    graph: Graph = eqx.field(kw_only=True)
    inputs: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    outputs: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    decay_floor: Float[Array, ""] = fixed(kw_only=True)
    gain_ceiling: Float[Array, ""] = fixed(kw_only=True)
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)

    @property
    def n(self) -> int:
        """How many nodes there are."""
        return self.graph.n

    @property
    def input_size(self) -> int:
        return len(self.inputs)

    def energy(self, state: Concentrations, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        u, v = state
        apart = lambda values: jnp.diff(taken(values, self.graph.edges))[..., 0]
        reaction = u**4 / 4 - self.gain * u**2 / 2 - self.feed(x) * u + self.coupling * u * v - self.decay * v**2 / 2
        spread = self.activator_diffusion * apart(u) ** 2 - self.inhibitor_diffusion * apart(v) ** 2
        return jnp.sum(reaction) + jnp.sum(spread) / 2

    def signature(self, state: Concentrations) -> Concentrations:
        return Concentrations(jnp.ones_like(state[0]), -jnp.ones_like(state[1]))

    def feed(self, x: Float[Array, "inputs"]) -> Inexact[Array, "n"]:
        """b + x, what every node is fed."""
        x = jnp.asarray(x)
        x = x if jnp.iscomplexobj(x) else x.astype(self.bias.dtype)
        return self.bias + x @ np.eye(self.n, dtype=self.bias.dtype)[np.asarray(self.inputs, int)]

    def initial_state(self, x: Float[Array, "inputs"]) -> Concentrations:
        """Nothing anywhere."""
        return Concentrations(jnp.zeros_like(self.bias), jnp.zeros_like(self.bias))

    def read(self, state: Concentrations, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return taken(state[0], np.asarray(self.outputs, int))

    def force_scale(self, state: Concentrations, x: Float[Array, "inputs"]) -> Concentrations:
        """The sizes of the rates of reaction and of diffusion that meet at each node."""
        u, v = (jnp.abs(values) for values in state)

        def spread(diffusion: Array, size: Array) -> Array:
            bonds = Bonds(jnp.abs(diffusion), self.graph)
            return bonds.product(size) + bonds.product(jnp.ones_like(size)) * size

        activated = jnp.abs(self.gain) * u + u**3 + jnp.abs(self.coupling) * v + jnp.abs(self.feed(x))
        inhibited = jnp.abs(self.coupling) * u + jnp.abs(self.decay) * v
        diffused = spread(self.activator_diffusion, u), spread(self.inhibitor_diffusion, v)
        return Concentrations(activated + diffused[0], inhibited + diffused[1])

    def constrained(self) -> Self:
        """The nearest network that diffuses forwards, with decays and gains within their limits."""
        return dataclasses.replace(
            self,
            activator_diffusion=jnp.maximum(self.activator_diffusion, 0),
            inhibitor_diffusion=jnp.maximum(self.inhibitor_diffusion, 0),
            decay=jnp.maximum(self.decay, self.decay_floor),
            gain=jnp.minimum(self.gain, self.gain_ceiling),
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
        activator_diffusion: Any = 0.1,
        inhibitor_diffusion: Any = 0.1,
        gain: Any = 0.5,
        coupling: Any = 1.0,
        decay: Any = 1.0,
        bias: Any = 0.0,
        decay_floor: float | None = None,
        gain_ceiling: float | None = None,
    ) -> Self:
        """A network on any graph.

        Args:
            edges: pairs of nodes between which both diffuse, integers of shape (m, 2).
            n: the number of nodes; by default as many as are mentioned.
            inputs: nodes that the numbers of x feed.
            outputs: nodes whose activator is read; they may be inputs, too.
            activator_diffusion, inhibitor_diffusion: d and D, shape (m,) or one number, not negative.
            gain, coupling, bias: a, c and b, shape (n,) or one number.
            decay: g, shape (n,) or one number, positive.
            decay_floor: the least decay in training; by default a thousandth of the smallest.
            gain_ceiling: the largest gain in training; None for none. At 0 every rest is stable.

        Raises:
            ValueError: for arguments of the wrong kind; the message says what to change.
        """
        sized = (gain, coupling, decay, bias)
        graph = Graph.naming(edges, n, {"inputs": inputs, "outputs": outputs}, sized)
        diffusion = {"activator_diffusion": activator_diffusion, "inhibitor_diffusion": inhibitor_diffusion}
        reaction = {"gain": gain, "coupling": coupling, "decay": decay, "bias": bias}
        fields = build.parameters(graph, diffusion, reaction)
        net = cls(
            **fields,
            graph=graph,
            inputs=arguments.different_nodes("inputs", inputs, graph.n),
            outputs=arguments.different_nodes("outputs", outputs, graph.n),
            decay_floor=build.decay_floor(decay_floor, fields["decay"]),
            gain_ceiling=build.gain_ceiling(gain_ceiling, fields["gain"]),
        )
        if not net.outputs:
            raise ValueError("outputs: wanted at least one node to read, got none")
        return net

    @classmethod
    def from_networkx(
        cls, graph: Any, *, inputs: Sequence[Hashable], outputs: Sequence[Hashable], **options: Any
    ) -> Self:
        """The network on a NetworkX graph; nodes are numbered in the graph's order.

        Args:
            graph: undirected, without parallel edges.
            inputs, outputs: labels of nodes.
            options: the others of `from_edges`; what every edge has may be the name of an edge attribute, what every
                node has that of a node attribute or {label: number}.

        Raises:
            ValueError: for a label that is no node, an edge without the attribute, and whatever `from_edges` refuses.
        """
        of = {"edges": ("activator_diffusion", "inhibitor_diffusion"), "nodes": ("gain", "coupling", "decay", "bias")}
        ends = {"inputs": inputs, "outputs": outputs}
        return arguments.on_graph(cls.from_edges, graph, **of, **ends, **options)

    @classmethod
    def lattice(cls, shape: int | Sequence[int], *, periodic: bool = False, **options: Any) -> Self:
        """Nodes on a grid of any dimension, numbered in C order, diffusing between nearest neighbours.

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
        """Inputs feed their own nodes, joined to hidden ones (`sizes`, by default twice the outputs) and to the
        outputs, by diffusion that learning strengthens or cuts; outputs are activators, by default under the
        cross-entropy. No gain rises above 0, so that the system rests whatever it learns.
        """
        return cls.from_edges(**build.for_task(n_inputs, n_outputs, sizes, key))

    def training_defaults(self) -> dict[str, Any]:
        return {
            "beta": 0.02,
            "cost": "cross-entropy",
            "epochs": 60,
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 0.03,
            "decay": 0.97,
        }

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per node; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    def draw(
        self,
        state: Concentrations | None = None,
        x: Float[Array, "inputs"] | None = None,
        ax: Axes | None = None,
        positions: Any = None,
    ) -> Axes:
        """Draws nodes coloured by the activator, with rims coloured by the inhibitor.

        Args:
            state: a state; None with an x settles the network, without one it is drawn bare.
            x: the input.
            ax: where to draw; None opens a new figure.
            positions: (n, 2) places of the nodes; None finds some, see `substrates.pictures.places`.

        Raises:
            ValueError: for positions of another shape.
        """
        if state is None and x is not None:
            state = self.relax(x).state
        roles = {"inputs": self.inputs, "outputs": self.outputs}
        return pictures.network(self.n, self.graph.edges, state, roles, ax, positions)
