"""Deep resistive networks: layers of nodes joined by conductances, rectified by diodes to ground."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from substrates import arguments
from substrates.classical.resistor.layer_descent import LayerDescent
from substrates.classical.resistor.network import ResistorNetwork
from substrates.nudge import Nudge, Pin
from substrates.substrate import fixed

if TYPE_CHECKING:
    from substrates.classical.resistor.circuit import CircuitNetwork
    from substrates.classical.resistor.elements import Shockley

State = tuple[Float[Array, "nodes"], ...]


class LayeredNetwork(ResistorNetwork):
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

    The state is the tuple of the voltages of the layers after the input.

    Source: Kendall et al. 2020, arXiv 2006.01981; Scellier 2024, arXiv 2402.11674.
    """

    conductance: tuple[Float[Array, "before after"], ...]
    bias_current: tuple[Float[Array, "nodes"], ...]
    rail_conductance: tuple[Float[Array, "rails nodes"], ...]
    rail_voltage: Float[Array, "rails"] = fixed()
    gain: Float[Array, "hidden"] = fixed()
    reverse_gain: Float[Array, "hidden"] = fixed()
    input_gain: Float[Array, ""] = fixed()
    floor: float = eqx.field(static=True, default=0.0)

    contrast_points: ClassVar[int] = 1
    linear_in_parameters: ClassVar[bool] = True
    solver: ClassVar[Any] = LayerDescent()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of inputs, of nodes in each hidden layer, and of outputs."""
        return (self.conductance[0].shape[0] // 2, *(g.shape[1] for g in self.conductance))

    # the contract

    @property
    def input_size(self) -> int:
        return self.sizes[0]

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        arguments.refuse_complex_input(x, self.input_gain.dtype)
        if jnp.shape(x) != (self.sizes[0],):
            raise ValueError(f"x: wanted shape ({self.sizes[0]},), one voltage per input, got {jnp.shape(x)}")
        dtype = jnp.result_type(self.conductance[0])
        return tuple(jnp.zeros(size, dtype) for size in self.sizes[1:])

    def read(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        return state[-1]

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        total = jnp.zeros((), state[0].dtype)
        for layer, (before, after, kappa) in enumerate(zip(self.driving(state, x), state, self.weights(), strict=True)):
            content = _pair_content(self.conductance[layer], before, after)
            content += _pair_content(self.rail_conductance[layer], self.rail_voltage, after)
            total += kappa * (content - jnp.sum(self.bias_current[layer] * after))
        return total

    def bounds(self, x: Float[Array, "inputs"]) -> tuple[State, State]:
        lower, upper = [], []
        for size in self.sizes[1:-1]:
            excitatory = np.arange(size) < (size + 1) // 2
            lower.append(jnp.where(excitatory, 0.0, -jnp.inf).astype(self.rail_voltage.dtype))
            upper.append(jnp.where(excitatory, jnp.inf, 0.0).astype(self.rail_voltage.dtype))
        open_side = jnp.full(self.sizes[-1], jnp.inf, self.rail_voltage.dtype)
        return (*lower, -open_side), (*upper, open_side)

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

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> LayeredNetwork:
        """A deep resistive network for a data set: `sizes` hidden layers (by default one of 256 nodes).

        Every layer of resistors divides the voltages. The input gain makes up for it: in proportion to
        sqrt(n_inputs n_hidden), which spreads over the nodes, and to the number of hidden layers squared, which fits
        the gains 480, 2000 and 4000 that Scellier 2024 (arXiv 2402.11674) gives networks of 1 to 3 layers of 1024.
        """
        hidden = (256,) if sizes is None else tuple(sizes)
        typical = float(np.mean(hidden)) if hidden else n_outputs
        gain = 480.0 * (n_inputs * typical / (784 * 1024)) ** 0.5 * max(len(hidden), 1) ** 2
        return layered_network((n_inputs, *hidden, n_outputs), key=key, input_gain=gain)

    # the physics

    def to_circuit(self, diode: Shockley | None = None) -> CircuitNetwork:
        """The same network as a circuit of single elements, for netlists and other solvers; see `unfold`.

        Args:
            diode: None keeps the diodes ideal; a `Shockley` makes them real.
        """
        from substrates.classical.resistor.unfold import unfold

        return unfold(self, diode)

    def input_voltages(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch doubled"]:
        """The voltages of the input nodes, input_gain (x, -x)."""
        driven = self.input_gain * x.astype(self.input_gain.dtype)
        return jnp.concatenate([driven, -driven], axis=-1)

    def input_current(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch nodes"]:
        """What the input nodes deliver into a first layer at 0 V: input_gain x (g_+ - g_-), half the products."""
        g = self.conductance[0]
        return self.input_gain * (x.astype(g.dtype) @ (g[: self.sizes[0]] - g[self.sizes[0] :]))

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

    def voltage_drops(self, state: State, x: Float[Array, "inputs"]) -> tuple[Float[Array, "before after"], ...]:
        """The voltage across each resistor between layers, volts, from the driving node to the driven one."""
        return tuple(u[:, None] - v[None, :] for u, v in zip(self.driving(state, x), state, strict=True))

    def currents(self, state: State, x: Float[Array, "inputs"]) -> tuple[Float[Array, "before after"], ...]:
        """The current through each resistor between layers, amperes, from the driving node to the driven one."""
        return tuple(g * drop for g, drop in zip(self.conductance, self.voltage_drops(state, x), strict=True))

    def dissipated_power(self, state: State, x: Float[Array, "inputs"]) -> tuple[Float[Array, "before after"], ...]:
        """The power g dv^2 that each resistor between layers turns into heat, watts."""
        return tuple(g * drop**2 for g, drop in zip(self.conductance, self.voltage_drops(state, x), strict=True))

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
                products = after - jnp.concatenate([half, -half])
                if sources_differ:
                    products += _batch_sum(self.input_voltages(xs) ** 2)[:, None]
            else:
                products = _batch_sum(u * t)[:, None] + after - u.T @ w - t.T @ v
            conductance.append(scale * products)
            rail_products = after - jnp.outer(rails, _batch_sum(crossing))
            if sources_differ:
                rail_products += batch * rails[:, None] ** 2
            rail.append(scale * rail_products)
            bias.append(-kappa / batch * _batch_sum(v))
        empty = jax.tree.map(lambda _: None, self)
        fields = lambda net: (net.conductance, net.bias_current, net.rail_conductance)
        return eqx.tree_at(fields, empty, (tuple(conductance), tuple(bias), tuple(rail)), is_leaf=lambda x: x is None)


def _batch_sum(values: Float[Array, "batch nodes"]) -> Float[Array, "nodes"]:
    """The sum over the batch by halves, which compilers turn into whole-row additions; a plain sum walks columns."""
    while values.shape[0] > 1:
        half = values.shape[0] // 2
        values = jnp.concatenate([values[:half] + values[half : 2 * half], values[2 * half :]])
    return values[0]


def _pair_content(g: Float[Array, "before after"], u: Float[Array, "before"], v: Float[Array, "after"]):
    return 0.5 * (u**2 @ jnp.sum(g, axis=1) + jnp.sum(g, axis=0) @ v**2) - u @ g @ v


def layered_network(
    sizes: Sequence[int],
    *,
    key: PRNGKeyArray,
    input_gain: float = 1.0,
    weight_gain: float = 1.0,
    amplifiers: Sequence[tuple[float, float]] | None = None,
    rails: Sequence[float] = (),
    floor: float = 0.0,
    dtype: Any = None,
) -> LayeredNetwork:
    """A deep resistive network with random conductances: uniform in weight_gain / sqrt(n_before) times (-1, 1), those
    below the floor put at the floor.

    Args:
        sizes: the numbers of inputs, of nodes in each hidden layer, and of outputs.
        key: draws the conductances.
        input_gain: what the doubled inputs (x, -x) are multiplied by.
        weight_gain: scales the conductances, siemens.
        amplifiers: for each hidden layer a pair (A, B): the next layer sees A times its voltages, and it feels B
            times the current that the amplifier delivers; None means none (A = B = 1).
        rails: fixed voltages to which every node after the input has trainable conductances (0: a leak to ground),
            drawn like the others.
        floor: the smallest conductance, siemens.
        dtype: of the parameters; JAX's default if None.

    Raises:
        ValueError: for sizes that are not at least two positive integers, or gains that are not positive and finite.

    Source: Scellier 2024, arXiv 2402.11674; the amplifiers, Kendall et al. 2020, arXiv 2006.01981.
    """
    sizes = tuple(operator.index(size) for size in sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: wanted at least two positive integers (inputs, ..., outputs), got {sizes}")
    amplifiers = [(1.0, 1.0)] * (len(sizes) - 2) if amplifiers is None else list(amplifiers)
    if len(amplifiers) != len(sizes) - 2:
        raise ValueError(
            f"amplifiers: wanted one pair (A, B) per hidden layer, {len(sizes) - 2} in all, got {len(amplifiers)}"
        )
    for name, values in (
        ("input_gain", [input_gain]),
        ("weight_gain", [weight_gain]),
        ("amplifiers", [g for pair in amplifiers for g in pair]),
    ):
        if not all(np.isfinite(value) and value > 0 for value in arguments.real_floats(name, values)):
            raise ValueError(f"{name}: wanted positive finite numbers, got {values}")
    if not np.all(np.isfinite(arguments.real_floats("rails", rails))):
        raise ValueError(f"rails: wanted finite voltages, got {tuple(rails)}")
    arguments.refuse_complex("floor", floor)
    if not (np.isfinite(floor) and floor >= 0):
        raise ValueError(f"floor: wanted a conductance of at least 0, got {floor}")
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    before, after = (2 * sizes[0], *sizes[1:-1]), sizes[1:]
    keys = jax.random.split(key, 2 * len(after))

    def draw(key, shape, fan_in):
        bound = weight_gain / fan_in**0.5
        return jnp.maximum(jax.random.uniform(key, shape, dtype, -bound, bound), jnp.asarray(floor, dtype))

    return LayeredNetwork(
        conductance=tuple(draw(k, (m, n), m) for k, m, n in zip(keys[::2], before, after, strict=True)),
        bias_current=tuple(jnp.zeros(n, dtype) for n in after),
        rail_conductance=tuple(draw(k, (len(rails), n), m) for k, m, n in zip(keys[1::2], before, after, strict=True)),
        rail_voltage=jnp.asarray(rails, dtype),
        gain=jnp.asarray([pair[0] for pair in amplifiers], dtype),
        reverse_gain=jnp.asarray([pair[1] for pair in amplifiers], dtype),
        input_gain=jnp.asarray(input_gain, dtype),
        floor=float(floor),
    )
