"""Exact block coordinate descent for layered resistive networks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from substrates.nudge import Nudge, Pin
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.solver import Equilibrium, Solver, Status, System, max_norm, part, reach, tolerance
from substrates.wiring import Dense, sweep_layers
from substrates.wiring.near import ROUGHNESS, in_full, near, roughly

State = tuple[Float[Array, "nodes"], ...]


class Layers(System, Protocol):
    """What the solver knows of a layered network; `LayeredNetwork` says what each of it is."""

    @property
    def conductance(self) -> tuple[Array, ...]: ...
    @property
    def bias_current(self) -> tuple[Array, ...]: ...
    @property
    def rail_conductance(self) -> tuple[Array, ...]: ...
    @property
    def rail_voltage(self) -> Array: ...
    @property
    def gain(self) -> Array: ...
    @property
    def reverse_gain(self) -> Array: ...
    def bounds(self, x: Array) -> tuple[State, State]: ...
    def weights(self) -> Array: ...
    def column_sums(self, layer: int, /) -> Array: ...
    def input_voltages(self, x: Array, /) -> Array: ...
    def first_layer(self, x: Array, /) -> tuple[Array, Array]: ...
    def meeting_currents(self, state: State, x: Array, columns: Sequence[Array], rows: Sequence[Array], /) -> State: ...


class LayerDescent(Solver):
    """Settles a layered network one layer at a time, each exactly, given the others.

    v_k <- clip((sum_j g_kj v_j + I_k + h o + pull) / (sum_j g_kj + h), lower, upper),

    with the nudge's pull and stiffness h at the outputs only. No step raises the co-content, and the sweeps converge
    (it is a convex quadratic within bounds; Scellier 2024, arXiv 2402.11674). The free phase sweeps from the inputs
    to the outputs, a nudged phase from the outputs back.

    Attributes:
        sweeps: a number of sweeps to do without a test (status `truncated`), or None to sweep until converged.
        max_sweeps: the most sweeps of a converging solve. It stops when a sweep changes no layer by more than rounding
            errors of the layer's voltages and of its departure from the start, and is then judged by the residual.
        mixed: multiply changes of voltages in bfloat16 (`Solver.in_bfloat16`), but for what the inputs deliver. Sweeps
            go on from currents that are known in full until they have come as far as such changes tell; the currents
            are then done in full again.
    """

    sweeps: int | None = None
    max_sweeps: int = 1000
    mixed: bool = eqx.field(static=True, default=False)

    def __call__(
        self,
        substrate: Layers,
        x: Float[Array, "inputs"],
        nudge: Nudge | Pin | None,
        start: State,
        key: PRNGKeyArray | None,
    ) -> Equilibrium:
        with in_full(self.mixed):
            return self._settle(substrate, x, nudge, start)

    def _settle(self, substrate: Layers, x: Array, nudge: Nudge | Pin | None, start: State) -> Equilibrium:
        nodes = _Nodes(substrate, x, nudge, start, self.mixed)
        start = nodes.pinned(start)
        if self.sweeps is not None:
            state, close = start, nodes.near(start)
            for _ in range(self.sweeps):
                state = close.sweep(state)
            steps = jnp.asarray(self.sweeps, jnp.int32)
        else:
            state, steps = self._converge(nodes, start)
        scale = nodes.scale(state)
        acting = nodes.acting(state[-1])
        parts = nodes.left_over(state, scale, acting)
        residual = max_norm(parts)
        brought = nudge.pull(start[-1]) if isinstance(nudge, Nudge) else None
        limit = tolerance(substrate, start, x, nudge, scale=scale[-1], brought=brought)
        met = Status.converged if self.sweeps is None else Status.truncated
        missed = Status.out_of_steps if self.sweeps is None else Status.truncated
        status = Status.where(residual <= limit, met, missed)
        if self.sweeps is None:
            sure = (residual > limit) | nodes.decided(state, parts, scale, acting.stiffness)
            status = Status.where(sure, status, Status.ill_conditioned)
        status = Status.where(jnp.isfinite(residual), status, Status.not_finite)
        # what nothing holds without a negative nudge has an output that floats
        unheld = Status.where(jnp.any(acting.stiffness < 0), Status.unstable, Status.zero_mode)
        status = Status.where(nodes.stable(acting.stiffness), status, unheld)
        return Equilibrium(state, substrate.total_energy(state, x, nudge), residual, steps, status)

    def _converge(self, nodes: _Nodes, start: State) -> tuple[State, Array]:
        # after a sweep the first layer follows from the second, so its change need not be looked at
        watched = slice(1, None) if len(start) > 1 else slice(None)
        epsilon = float(jnp.finfo(nodes.dtype).eps)

        def settle(carry, nodes, origin):
            """Sweeps until a sweep changes no layer by more than rounding, and than changes from the origin tell."""

            def moving(carry):
                *_, telling, sweep = carry
                return telling & (sweep < self.max_sweeps)

            def advance(carry):
                state, thresholds, *_, sweep = carry
                new = nodes.sweep(state)
                changes, still, telling = [], [], []
                for old, after, begin, threshold in zip(
                    state[watched], new[watched], origin[watched], thresholds, strict=True
                ):
                    change = jnp.abs(after - old)
                    # rounding of as much as the first sweeps move, or as the voltages then are
                    least = 2 * epsilon * (8 * jnp.max(change) + jnp.max(jnp.abs(after)))
                    changes.append(jnp.where(sweep <= 1, jnp.maximum(least, threshold), threshold))
                    if self.mixed:
                        lost = ROUGHNESS * jnp.max(jnp.abs(after - begin))
                        still.append(jnp.any(change > changes[-1]) | (lost > changes[-1]))
                        telling.append(jnp.any(change > jnp.maximum(changes[-1], lost)))
                    else:
                        still.append(jnp.any(change > changes[-1]))
                still = jnp.any(jnp.stack(still)) | (sweep == 0)
                return new, changes, still, jnp.any(jnp.stack(telling)) if self.mixed else still, sweep + 1

            state, thresholds, _, _, sweep = carry
            return jax.lax.while_loop(moving, advance, (state, thresholds, *[jnp.asarray(True)] * 2, sweep))

        none = [jnp.zeros((), nodes.dtype)] * len(start[watched])
        carry = (start, none, *[jnp.asarray(True)] * 2, jnp.zeros((), jnp.int32))
        if self.mixed:
            going = lambda carry: carry[2] & (carry[-1] < self.max_sweeps)
            again = lambda carry: settle(carry, nodes.near(carry[0]), carry[0])
            state, *_, sweeps = jax.lax.while_loop(going, again, carry)
        else:
            state, *_, sweeps = settle(carry, nodes, start)
        return state, sweeps


class _Acting(NamedTuple):
    """What a nudge does to the outputs: its pull, its stiffness, and the sizes of the currents that it brings."""

    pull: Array
    stiffness: Array
    size: Array


class _Nodes:
    """The constants of one solve: what flows into each node from fixed voltages, and each node's conductance."""

    def __init__(self, net: Layers, x: Float[Array, "inputs"], nudge: Nudge | Pin | None, start: State, mixed: bool):
        self.net, self.x, self.nudge = net, x, nudge
        self.last = len(start) - 1
        self.lower, self.upper = net.bounds(x)
        self.kappa, self.dtype = list(net.weights()), net.gain.dtype
        self.gain, self.reverse_gain = list(net.gain), list(net.reverse_gain)
        self.source, self.total, self.columns = [], [], []
        self.couplings = tuple(map(Dense, net.conductance[1:]))
        self.rough = tuple(map(roughly, self.couplings)) if mixed else None
        self.rows = [jnp.sum(g, axis=1) for g in net.conductance[1:]]
        for layer, (rails, bias) in enumerate(zip(net.rail_conductance, net.bias_current, strict=True)):
            source = bias + net.rail_voltage @ rails
            delivered, total = net.first_layer(x) if layer == 0 else (0, net.column_sums(layer))
            self.columns.append(total)
            source += delivered
            if layer < self.last:
                total += self.gain[layer] * self.reverse_gain[layer] * self.rows[layer]
            self.source.append(source)
            self.total.append(total)

    def near(self, state: State) -> _Nodes:
        """The same solve with conductances that multiply changes from here in bfloat16, where they may."""
        if self.rough is None:
            return self
        before = [gain * v for gain, v in zip(self.gain, state[:-1], strict=True)]
        sent = [coupling.forward(v) for coupling, v in zip(self.couplings, before, strict=True)]
        close = copy.copy(self)
        close.couplings = tuple(map(near, self.couplings, self.rough, before, sent, state[1:]))
        return close

    def pinned(self, state: State) -> State:
        if isinstance(self.nudge, Pin):
            return (*state[:-1], jnp.asarray(self.nudge.target, state[-1].dtype))
        return state

    def arriving(self, state: State | list, layer: int) -> Float[Array, "nodes"]:
        """sum_j g_kj v_j + I_k at every node k of a layer."""
        current = self.source[layer]
        if layer > 0:
            current += self.couplings[layer - 1].forward(self.gain[layer - 1] * state[layer - 1])
        if layer < self.last:
            current += self.reverse_gain[layer] * self.couplings[layer].backward(state[layer + 1])
        return current

    def settle(self, state: list, layer: int) -> Float[Array, "nodes"]:
        """The voltages of one layer that minimise the co-content given its neighbours."""
        voltage, total, current = state[layer], self.total[layer], self.arriving(state, layer)
        if layer == self.last:
            if isinstance(self.nudge, Pin):
                return voltage
            if isinstance(self.nudge, Nudge):
                pull, stiffness = self.nudge.pull_and_stiffness(voltage)
                current = self.kappa[layer] * current + stiffness * voltage + pull
                total = self.kappa[layer] * total + stiffness
        # a node without any conductance floats: whatever its voltage is, no current flows
        settled = jnp.where(total != 0, current / jnp.where(total != 0, total, 1), voltage)
        return settled if layer == self.last else jnp.clip(settled, self.lower[layer], self.upper[layer])

    def sweep(self, state: State) -> State:
        return sweep_layers(self._in_turn, state, len(state), self.nudge)

    def _in_turn(self, state: State, order: Sequence[int]) -> State:
        voltages = list(state)
        for layer in order:
            voltages[layer] = self.settle(voltages, layer)
        return tuple(voltages)

    def scale(self, state: State) -> State:
        """The currents that meet at each node, as the substrate has them."""
        return self.net.meeting_currents(state, self.x, self.columns, self.rows)

    def acting(self, voltage: Float[Array, "outputs"]) -> _Acting:
        """What acts on the outputs at these voltages."""
        if not isinstance(self.nudge, Nudge):
            return _Acting(*[jnp.zeros_like(voltage)] * 3)
        pull, stiffness = self.nudge.pull_and_stiffness(voltage)
        felt = jnp.abs(pull) + jnp.abs(stiffness * voltage) if self.nudge.separable else self.nudge.size(voltage)
        return _Acting(pull, stiffness, felt)

    def left_over(self, state: State, scale: State, acting: _Acting) -> State:
        """The parts that Kirchhoff's law leaves over of the currents that meet at each node; the substrate's own
        residual is the largest of them.
        """
        parts = []
        for layer, voltage in enumerate(state):
            if layer == self.last and isinstance(self.nudge, Pin):
                parts.append(part(voltage - self.nudge.target, jnp.abs(voltage) + jnp.abs(self.nudge.target)))
                continue
            force = self.kappa[layer] * (self.arriving(state, layer) - self.total[layer] * voltage)
            if layer == self.last:
                parts.append(part(force + acting.pull, scale[layer] + acting.size))
                continue
            stiffness = self.kappa[layer] * self.total[layer]
            lower, upper = (reach(stiffness, side[layer], voltage) for side in (self.lower, self.upper))
            parts.append(part(jnp.clip(force, lower, upper), scale[layer]))
        return tuple(parts)

    def decided(self, state: State, parts: State, scale: State, stiffness: Array) -> Bool[Array, ""]:
        """Whether what is left over, and rounding, can move no node by more than `state_tolerance` of the
        largest voltage.

        Nodes that are joined strongly to the layers beside them and weakly to the sources drift slowly to where they
        belong: sweeps stop while they are away, and the currents balance all the same. With the errors e_l of whole
        layers, in units that amplifiers leave alone, every node obeys

            (F + f + b) e <= f e_before + b e_after + r,

        F, f and b being its conductances to what is fixed and to the layers before and after it, r its imbalance. The
        layers are eliminated from the inputs on, by sums alone. A node without conductance stands where it stood.
        """
        net, dtype = self.net, self.dtype
        epsilon = float(jnp.finfo(dtype).eps)
        tiny = float(jnp.finfo(dtype).tiny)  # of a node without conductance all is grounded
        amplified = jnp.concatenate([jnp.ones(1, dtype), jnp.cumprod(net.gain)])
        grounding = jnp.zeros((), dtype)  # 1 - the share of the layer's own error that comes back from before it
        offset = jnp.zeros((), dtype)
        bounds = []
        for layer, g in enumerate(net.conductance):
            fixed = jnp.sum(net.rail_conductance[layer], axis=0)
            before = jnp.maximum(self.columns[layer] - fixed, 0)
            if layer == 0:
                before, fixed, seen = jnp.zeros_like(before), fixed + before, jnp.zeros_like(before)
            else:
                seen = grounding @ g
            after = jnp.zeros_like(before)
            if layer < self.last:
                after = self.gain[layer] * self.reverse_gain[layer] * self.rows[layer]
            if layer == self.last and isinstance(self.nudge, Nudge):
                fixed = fixed + stiffness / self.kappa[layer]
            if layer == self.last and isinstance(self.nudge, Pin):
                fixed = jnp.ones_like(fixed)
            off = scale[layer] * (parts[layer] + epsilon) / (self.kappa[layer] * amplified[layer])
            held = fixed + seen
            loose = 1 - jnp.min((held + tiny) / (held + after + tiny))  # of the layer after, in this layer
            offset = jnp.max((before * offset + off) / (held + after + tiny))
            bounds.append((loose, offset))
            grounding = (held + (before - seen) * (1 - loose) + tiny) / (fixed + before + after + tiny)
        error, worst = jnp.zeros((), dtype), jnp.zeros((), dtype)
        for loose, drift in reversed(bounds):
            error = loose * error + drift
            worst = jnp.maximum(worst, error)
        sizes = [jnp.max(jnp.abs(v)) / a for v, a in zip(state, amplified, strict=False)]
        size = jnp.max(jnp.stack(sizes))
        size = jnp.where(size > 0, size, jnp.max(jnp.abs(net.input_voltages(self.x)), initial=0.0))
        return worst <= state_tolerance(dtype) * size

    def stable(self, stiffness: Array) -> Array:
        """Whether the outputs are held: their total conductance exceeds what a negative nudge takes away."""
        return jnp.all(self.kappa[-1] * self.total[-1] + stiffness > 0)
