"""Deep resistive networks: layers of nodes joined by conductances, rectified by diodes to ground."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from substrates.classical.resistor import pictures
from substrates.classical.resistor.circuit import ResistorCircuit
from substrates.classical.resistor.elements import GROUND, Shockley
from substrates.classical.resistor.layer_descent import LayerDescent
from substrates.nudge import Nudge, Pin
from substrates.substrate import fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = tuple[Float[Array, "nodes"], ...]


Network = TypeVar("Network")


class LayeredNetwork(ResistorCircuit, Generic[Network]):
    """A deep resistive network: each layer's nodes are joined to all nodes of the next by conductances.

    The inputs drive the first layer as the doubled voltages input_gain (x, -x), which stand in for negative weights.
    Hidden nodes are rectified by ideal diodes to ground: the first half of a layer is excitatory (v >= 0), the second
    half inhibitory (v <= 0). The output layer is linear. Between layers an amplifier may show the next layer A v and
    draw B times the current that it delivers. The co-content (half the dissipated power, without amplifiers) is

        P(v) = sum_l kappa_l [ 1/2 sum_ij g_ij (A v_i - v_j)^2 + 1/2 sum_rj g_rj (V_r - v_j)^2 - sum_j I_j v_j ],

    with i in layer l-1, j in layer l, rails r, and kappa_l the product of B/A over the amplifiers before layer l. Its
    minimum over the voltages that the diodes allow is the operating point.

    Attributes:
        conductance: for each pair of successive layers a matrix of shape (n_before, n_after), siemens; the first has
            two rows per input.
        bias_current: for each layer after the input a vector of current sources into its nodes, amperes.
        rail_conductance: for each layer after the input a matrix (n_rails, n_nodes) of conductances to the rails.
        rail_voltage: the fixed voltages of the rails, shape (n_rails,), volts; a rail at 0 V is a leak to ground.
        gain, reverse_gain: A and B of the amplifiers after each hidden layer, shape (n_hidden_layers,).
        input_gain: what the inputs are multiplied by.
        floor: the smallest conductance that `constrained` allows.
        build_circuit: makes a network of single elements of them, `ResistorNetwork.from_edges`.
        solver: how it settles.

    The state is the tuple of the voltages of the layers after the input.

    Source: Kendall et al. 2020, arXiv 2006.01981; Scellier 2024, arXiv 2402.11674.
    """

    holomorphic: ClassVar[bool] = False

    conductance: tuple[Float[Array, "before after"], ...]
    bias_current: tuple[Float[Array, "nodes"], ...]
    rail_conductance: tuple[Float[Array, "rails nodes"], ...]
    rail_voltage: Float[Array, "rails"] = fixed()
    gain: Float[Array, "hidden"] = fixed()
    reverse_gain: Float[Array, "hidden"] = fixed()
    input_gain: Float[Array, ""] = fixed()
    floor: float = eqx.field(static=True, default=0.0)
    build_circuit: Callable[..., Network] = eqx.field(static=True, repr=False, kw_only=True)

    solver: Any = eqx.field(static=True, default=LayerDescent(), kw_only=True)  # type: ignore[override]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of inputs, of nodes in each hidden layer, and of outputs."""
        return (self.conductance[0].shape[0] // 2, *(g.shape[1] for g in self.conductance))

    # the contract

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        total = jnp.zeros((), state[0].dtype)
        for layer, (before, after, kappa) in enumerate(zip(self.driving(state, x), state, self.weights(), strict=True)):
            content = _pair_content(self.conductance[layer], before, after)
            content += _pair_content(self.rail_conductance[layer], self.rail_voltage, after)
            total += kappa * (content - jnp.sum(self.bias_current[layer] * after))
        return total

    @property
    def input_size(self) -> int:
        return self.sizes[0]

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        dtype = jnp.result_type(self.conductance[0])
        return tuple(jnp.zeros(size, dtype) for size in self.sizes[1:])

    def read(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        return state[-1]

    def bounds(self, x: Float[Array, "inputs"]) -> tuple[State, State]:
        lower, upper, dtype = [], [], self.rail_voltage.dtype
        for size in self.sizes[1:-1]:
            excitatory = np.arange(size) < (size + 1) // 2
            lower.append(jnp.asarray(np.where(excitatory, 0.0, -np.inf), dtype))
            upper.append(jnp.asarray(np.where(excitatory, np.inf, 0.0), dtype))
        open_side = np.full(self.sizes[-1], np.inf)
        return (*lower, jnp.asarray(-open_side, dtype)), (*upper, jnp.asarray(open_side, dtype))

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """A bound on the currents that meet at each node of layer l: kappa_l (max |v_driving| + |v_j|) sum_i g_ij, and
        the same towards the layer after it.
        """
        columns = [self.column_sums(layer) for layer in range(len(state))]
        return self.meeting_currents(state, x, columns, [jnp.sum(g, axis=1) for g in self.conductance[1:]])

    def meeting_currents(
        self,
        state: State,
        x: Float[Array, "inputs"],
        columns: Sequence[Float[Array, "nodes"]],
        rows: Sequence[Float[Array, "nodes"]],
    ) -> State:
        """`force_scale` from the total conductances of layers towards the one before (`column_sums`) and after them."""
        driving, kappa = self.driving(state, x), self.weights()
        scales = []
        for layer, after in enumerate(state):
            highest = jnp.maximum(jnp.max(jnp.abs(driving[layer])), jnp.max(jnp.abs(self.rail_voltage), initial=0.0))
            meeting = kappa[layer] * (highest + jnp.abs(after)) * columns[layer]
            if layer + 1 < len(state):
                later = jnp.max(jnp.abs(state[layer + 1])) + jnp.abs(self.gain[layer] * after)
                meeting += kappa[layer] * self.reverse_gain[layer] * later * rows[layer]
            scales.append(meeting + kappa[layer] * jnp.abs(self.bias_current[layer]))
        return tuple(scales)

    def bound_stiffness(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The total conductance of each node, kappa_l (sum_i g_ij + A B sum_k g_jk), siemens."""
        kappa = self.weights()
        totals = []
        for layer in range(len(state)):
            total = self.column_sums(layer)
            if layer + 1 < len(state):
                onwards = jnp.sum(self.conductance[layer + 1], axis=1)
                total += self.gain[layer] * self.reverse_gain[layer] * onwards
            totals.append(kappa[layer] * total)
        return tuple(totals)

    def measure(self, states: State, xs: Float[Array, "batch inputs"], nudges: Nudge | Pin | None = None) -> Self:
        """dP/dg = kappa dv^2/2 across every resistor and dP/dI = -kappa v, averaged over the batch."""
        return self._observables(states, states, xs, 0.5, sources_differ=True)

    def contrast(
        self,
        plus: State,
        minus: State,
        xs: Float[Array, "batch inputs"],
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """measure(plus) - measure(minus) as (d_i - d_j)(m_i - m_j), with d the difference and m the mean voltage."""
        difference = jax.tree.map(jnp.subtract, plus, minus)
        mean = jax.tree.map(lambda p, m: (p + m) / 2, plus, minus)
        return self._observables(difference, mean, xs, 1.0, sources_differ=False)

    def constrained(self) -> Self:
        clamp = lambda matrices: tuple(jnp.maximum(g, self.floor) for g in matrices)
        return eqx.tree_at(
            lambda net: (net.conductance, net.rail_conductance),
            self,
            (clamp(self.conductance), clamp(self.rail_conductance)),
        )

    def training_defaults(self) -> dict[str, Any]:
        """Centred nudges of one siemens and plain gradient descent on single conductances, in small batches.

        On the bench a conductance yields to the power on it, and its node to the conductance: they have a common
        minimum while epsilon times the sum of the squares of the voltages that drive a node stays below its
        conductance. The settings suit one hidden layer and inputs of a mean square of about 0.2, as the digits are.
        """
        own = {"beta": 1.0, "epochs": 60, "batch_size": 4, "optimiser": "sgd", "learning_rate": 0.01, "decay": 0.99}
        if len(self.conductance) != 2:
            return own
        square, (inputs, hidden, _) = float(self.input_gain) ** 2, self.sizes
        first = 0.4 * float(jnp.mean(self.column_sums(0))) / (square * inputs)
        later = 0.4 * inputs / (square * hidden**0.5)
        yields = {"conductance[0]": first, "conductance[1]": later, "bias_current": later, "rail_conductance": later}
        return {**own, "bench": {"epsilon": yields, "beta": 2.0, "variant": "centered", "epochs": 15}}

    # the physics

    def to_circuit(self, diode: Shockley | None = None) -> Network:
        """The same network, with concrete parameters, as a circuit of single elements with the same inputs x.

        Nodes are numbered: the inputs x; the doubled inputs input_gain (x, -x); then layer by layer the nodes, and
        after a hidden layer with an amplifier the amplified copies; at the end the rails that are not at 0 V.

        Args:
            diode: None keeps the diodes ideal; a `Shockley` makes them real.
        """
        return self.build_circuit(**_single_elements(self), diode=diode)

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """The network in its equilibrium, as `pictures.layers` draws it; see there."""
        return pictures.layers(self, state, x, ax)

    def input_voltages(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch doubled"]:
        """The voltages of the input nodes, input_gain (x, -x)."""
        driven = self.input_gain * x.astype(self.input_gain.dtype)
        return jnp.concatenate([driven, -driven], axis=-1)

    def first_layer(self, x: Float[Array, "inputs"]) -> tuple[Float[Array, "nodes"], Float[Array, "nodes"]]:
        """What the input nodes deliver into a first layer at 0 V, input_gain x (g_+ - g_-), and `column_sums(0)`."""
        g, rails = self.conductance[0], self.rail_conductance[0]
        delivered, total = _delivered_and_total(g, x.astype(g.dtype))
        return self.input_gain * delivered, total + jnp.sum(rails, axis=0)

    def column_sums(self, layer: int) -> Float[Array, "nodes"]:
        """The total conductance of each node of a layer towards the layer before it and the rails."""
        g, rails = self.conductance[layer], self.rail_conductance[layer]
        # behind the barrier the compiler sums once for all users rather than once in each
        return jax.lax.optimization_barrier(jnp.sum(g, axis=0)) + jnp.sum(rails, axis=0)

    def driving(self, state: State, x: Float[Array, "*batch inputs"]) -> tuple[Float[Array, "*batch nodes"], ...]:
        """The voltages that each layer after the input sees before it, amplified: input_gain (x, -x), A_1 v_1, ..."""
        amplified = [gain * layer for gain, layer in zip(self.gain, state[:-1], strict=True)]
        return (self.input_voltages(x), *amplified)

    def weights(self) -> Float[Array, "layers"]:
        """kappa_l, the weight of each layer's power in the co-content: products of B/A of the amplifiers before it."""
        return jnp.concatenate([jnp.ones(1, self.gain.dtype), jnp.cumprod(self.reverse_gain / self.gain)])

    def voltages(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The voltages of all nodes, layer by layer, those of the doubled inputs first, volts."""
        return (self.input_voltages(x), *state)

    def voltage_drops(self, state: State, x: Float[Array, "inputs"]) -> tuple[Float[Array, "before after"], ...]:
        """The voltage across each resistor between layers, volts, from the driving node to the driven one."""
        return tuple(u[:, None] - v[None, :] for u, v in zip(self.driving(state, x), state, strict=True))

    def _observables(
        self, left: State, right: State, xs: Float[Array, "batch inputs"], factor: float, *, sources_differ: bool
    ) -> Self:
        """factor times the batch mean of kappa (dl)(dr) per resistor, with dl and dr its drops in the states left and
        right, as matrix products: no (batch, before, after) array is formed. Where `left` is a difference of states,
        the sources (inputs and rails) do not differ and drop out of it.
        """
        batch = xs.shape[0]
        amplify = lambda state: [gain * layer for gain, layer in zip(self.gain, state[:-1], strict=True)]
        left_before, right_before = [None, *amplify(left)], [None, *amplify(right)]
        rails = self.rail_voltage
        conductance, bias, rail = [], [], []
        for layer, (v, w, kappa) in enumerate(zip(left, right, self.weights(), strict=True)):
            scale = factor * kappa / batch
            after = _batch_sum(v * w)
            u, t = left_before[layer], right_before[layer]
            crossing = v + w if sources_differ else v
            if u is None or t is None:
                half = self.input_gain * (xs.astype(v.dtype).T @ crossing)
                products = after[None] - jnp.concatenate([half, -half])
                if sources_differ:
                    products += _batch_sum(self.input_voltages(xs) ** 2)[:, None]
            else:
                products = _batch_sum(u * t)[:, None] + after[None] - u.T @ w - t.T @ v
            conductance.append(scale * products)
            rail_products = after[None] - jnp.outer(rails, _batch_sum(crossing))
            if sources_differ:
                rail_products += batch * rails[:, None] ** 2
            rail.append(scale * rail_products)
            bias.append(-kappa / batch * _batch_sum(v))
        empty = jax.tree.map(lambda _: None, self)
        fields = lambda net: (net.conductance, net.bias_current, net.rail_conductance)
        return eqx.tree_at(fields, empty, (tuple(conductance), tuple(bias), tuple(rail)), is_leaf=lambda x: x is None)


AT_MOST_A_FEW = 16
"""Examples for which it is quicker to read the conductances of the inputs once than to halve the products with them."""


def _for_one(g: Float[Array, "doubled nodes"], x: Float[Array, "inputs"]) -> tuple[Array, Array]:
    """x (g_+ - g_-) and the column sums of g = (g_+, g_-)."""
    delivered, total = _for_a_few(g, x[None])
    return delivered[0], total


_delivered_and_total = custom_vmap(_for_one)


@_delivered_and_total.def_vmap
def _for_a_batch(size: int, batched: list[bool], g: Array, xs: Array) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    if batched[0]:
        return jax.vmap(_for_one, in_axes=(0, 0 if batched[1] else None))(g, xs), (True, True)
    return (_for_a_few if size <= AT_MOST_A_FEW else _for_many)(g, xs), (True, False)


def _for_a_few(g: Float[Array, "doubled nodes"], xs: Float[Array, "batch inputs"]) -> tuple[Array, Array]:
    rows = jnp.concatenate([jnp.concatenate([xs, -xs], axis=1), jnp.ones((1, len(g)), g.dtype)])
    products = jnp.matmul(rows, g, precision="highest")
    return products[:-1], products[-1]


def _for_many(g: Float[Array, "doubled nodes"], xs: Float[Array, "batch inputs"]) -> tuple[Array, Array]:
    half = xs.shape[1]
    return xs @ (g[:half] - g[half:]), _batch_sum(g)


def _batch_sum(values: Float[Array, "batch nodes"]) -> Float[Array, "nodes"]:
    """The sum over the batch, as a product of matrices, which compilers do once; a plain sum, or a product with one
    row, they do slowly, or again for every conductance that a node has.
    """
    return jnp.matmul(jnp.ones((2, len(values)), values.dtype), values, precision="highest")[0]


def _pair_content(g: Float[Array, "before after"], u: Float[Array, "before"], v: Float[Array, "after"]):
    return 0.5 * (u**2 @ jnp.sum(g, axis=1) + jnp.sum(g, axis=0) @ v**2) - u @ g @ v


def _single_elements(net: LayeredNetwork) -> dict[str, Any]:
    """The elements of `LayeredNetwork.to_circuit`, as `ResistorNetwork.from_edges` takes them."""
    total = 0

    def number(count: int) -> range:
        nonlocal total
        total += count
        return range(total - count, total)

    inputs = number(net.sizes[0])
    before = number(2 * len(inputs))
    gain = float(net.input_gain)
    signed = zip(before, [*inputs, *inputs], np.repeat([gain, -gain], len(inputs)).tolist(), strict=True)
    sources: list[tuple[float, ...]] = [(node, GROUND, source, GROUND, factor) for node, source, factor in signed]
    edges, conductance, diodes, currents, layers = [], [], [], [], []
    for layer, size in enumerate(net.sizes[1:]):
        nodes = number(size)
        layers.append(nodes)
        edges.append(np.stack(np.meshgrid(before, nodes, indexing="ij"), axis=-1).reshape(-1, 2))
        conductance.append(np.asarray(net.conductance[layer]).ravel())
        bias = np.asarray(net.bias_current[layer]).tolist()
        currents += [(GROUND, node, current) for node, current in zip(nodes, bias, strict=True) if current != 0]
        before = nodes
        if layer < len(net.sizes) - 2:
            half = (size + 1) // 2
            diodes += [(GROUND, node) for node in nodes[:half]] + [(node, GROUND) for node in nodes[half:]]
            gains = float(net.gain[layer]), float(net.reverse_gain[layer])
            if gains != (1.0, 1.0):
                before = number(size)
                sources += [(copy, GROUND, node, GROUND, *gains) for copy, node in zip(before, nodes, strict=True)]
    rails = {}
    for rail, voltage in enumerate(np.asarray(net.rail_voltage).tolist()):
        node = GROUND if voltage == 0 else number(1)[0]
        if voltage != 0:
            rails[node] = voltage
        for nodes, joined in zip(layers, net.rail_conductance, strict=True):
            edges.append(np.stack([np.full(len(nodes), node), nodes], axis=-1))
            conductance.append(np.asarray(joined[rail]))
    return {
        "edges": np.concatenate(edges),
        "n": total,
        "inputs": inputs,
        "outputs": layers[-1],
        "conductance": np.concatenate(conductance),
        "rails": rails,
        "diodes": diodes,
        "current_sources": currents,
        "controlled_sources": sources,
        "floor": net.floor,
    }
