"""Dense Hopfield networks whose couplings and biases settle with their activities, held by springs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from substrates.classical.hopfield.layers import (
    BATCH,
    Layered,
    State,
    balances,
    chain_is_convex,
    least_stiffness,
    meeting_layers,
    one_over,
    output_at_rest,
    pushed_aside,
    restless,
)
from substrates.nudge import Nudge, batch_axes
from substrates.solvers.joint import JointEquilibrium, SpringControl, joint_status
from substrates.solvers.solver import Equilibrium, Status, left_over, max_norm, tolerance
from substrates.wiring import Strength, added

T = TypeVar("T")


def relax_with_couplings(
    net: Layered,
    control: SpringControl,
    knobs: Layered,
    xs: Array,
    nudges: Nudge | None,
    starts: State,
    max_rounds: int,
) -> JointEquilibrium:
    """The minimum over couplings, biases and the activities of every copy, without a coupling in any sweep.

    The couplings at rest are known in terms of the activities, W_k = u_k + (epsilon/B) sum_b s_(k-1),b s_k,b', so that
    copy b of layer k feels from the layer before

        a_b = s_(k-1),b u_k + sum_c K_bc s_k,c,   K_bc = (epsilon <s_(k-1),b, s_(k-1),c> + epsilon_bias)/B,

    besides the bias's knob, and a term of the same form from the layer after. K is positive semidefinite: moving a
    layer to clip(a, 0, 1) minimises a bound that touches the joint energy at the activities at hand, so that no sweep
    raises it. Where epsilon times the largest eigenvalue of the mean of x x' exceeds 1 there is no minimum but at the
    bounds.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021, for the joint minimum; Yuille and Rangarajan
    2003, "The concave-convex procedure".
    """
    layers = _JointLayers(net, control, knobs, xs, nudges)
    axes = (0, 0, batch_axes(nudges))
    limits = jax.vmap(lambda s, x, n: tolerance(net, s, x, n), in_axes=axes)(starts, xs, nudges)

    least = jnp.min(limits)
    rough = jnp.maximum(jnp.sqrt(least) / 4, least)
    none, endless = jnp.zeros_like(least), jnp.full_like(least, jnp.inf)

    def settle(outer):
        state, _, _, first, aside = outer
        level = jnp.where(aside, rough, least)
        weights = one_over(layers.scale(state))

        def moving(inner):
            _, before, change, sweep = inner
            return restless(before, change, level) & (sweep < jnp.minimum(first + BATCH, max_rounds))

        def advance(inner):
            state, _, before, sweep = inner
            moved = layers.sweep(state)
            change = max_norm(jax.tree.map(lambda new, old, weight: (new - old) * weight, moved, state, weights))
            return moved, jnp.where(jnp.isfinite(before), before, 0), change, sweep + 1

        state, before, change, sweep = jax.lax.while_loop(moving, advance, (state, none, endless, first))
        moves = restless(before, change, level)
        push = aside & ~moves
        state = jax.lax.cond(push, lambda s: pushed_aside(s, layers.scale(s), rough, None, sweep), lambda s: s, state)
        return state, layers.residual(state), moves | push, sweep, aside & moves

    def unsettled(outer):
        _, residual, moves, sweep, _ = outer
        return (jnp.any(residual > limits) | moves) & (sweep < max_rounds)

    start = (
        starts,
        jnp.full_like(limits, jnp.inf),
        jnp.asarray(True),
        jnp.zeros((), jnp.int32),
        ~layers.convex(starts),
    )
    state, residual, moves, sweeps, _ = jax.lax.while_loop(unsettled, settle, start)
    unstable = layers.runaway(state)
    axes = (0, 0, 0, None, 0, 0, None)
    found = jax.vmap(_judged, in_axes=axes)(state, layers.energy(state), residual, sweeps, limits, unstable, moves)
    at_rest = jnp.zeros((), limits.dtype)
    return JointEquilibrium(layers.at_rest(state), found, sweeps, joint_status(found, at_rest, at_rest))


def _judged(
    state: State, energy: Array, residual: Array, sweeps: Array, limit: Array, unstable: Array, moves: Array
) -> Equilibrium:
    status = Status.where((residual <= limit) & ~moves, Status.converged, Status.out_of_steps)
    status = Status.where(jnp.isfinite(residual), status, Status.not_finite)
    return Equilibrium(state, energy, residual, sweeps, Status.where(unstable, Status.unstable, status))


class _JointLayers:
    """The activities of a batch, and what they feel once couplings and biases have followed them."""

    def __init__(self, net: Layered, control: SpringControl, knobs: Layered, xs: Array, nudges: Nudge | None):
        shared = jax.tree.structure(control.epsilon) == jax.tree.structure(0.0)
        self.yields: Layered = jax.tree.map(lambda _: control.epsilon, knobs) if shared else control.epsilon
        self.net, self.knobs, self.nudges = net, knobs, nudges
        self.last = len(net.bias) - 1
        self.batch = xs.shape[0]
        self.inputs = jax.vmap(net.clamped)(xs)
        self.driven = self.inputs @ knobs.coupling[0].weight
        self.gram = self.inputs @ self.inputs.T
        self.strengths = tuple(Strength.of(c.weight) for c in knobs.coupling[1:])

    def each(self, of: Callable[..., T], *arrays: Array) -> T:
        """What a function makes of the nudge and the outputs of every copy."""
        axes = (batch_axes(self.nudges), *(0 for _ in arrays))
        return jax.vmap(of, in_axes=axes)(self.nudges, *arrays)

    def from_before(self, state: Sequence[Array], k: int) -> Array:
        """The bias and what the layer before sends."""
        if k == 0:
            sent, gram = self.driven, self.gram
        else:
            sent, gram = state[k - 1] @ self.knobs.coupling[k].weight, state[k - 1] @ state[k - 1].T
        mutual = (self.yields.coupling[k].weight * gram + self.yields.bias[k]) / self.batch
        return added(self.knobs.bias[k], sent + mutual @ state[k])

    def from_after(self, state: Sequence[Array], k: int) -> Array:
        """What the layer after sends back."""
        after = state[k + 1]
        mutual = self.yields.coupling[k + 1].weight / self.batch * (after @ after.T)
        return after @ self.knobs.coupling[k + 1].weight.T + mutual @ state[k]

    def sweep(self, state: State) -> State:
        moved = list(state)
        order = range(self.last + 1)
        for k in order if self.nudges is None else reversed(order):
            felt = self.from_before(moved, k)
            if k < self.last:
                moved[k] = jnp.clip(felt + self.from_after(moved, k), 0, 1)
            else:
                moved[k] = self.each(lambda nudge, o, a: output_at_rest(o, a, nudge), moved[k], felt)
        return tuple(moved)

    def residual(self, state: State) -> Float[Array, "batch"]:
        """The largest part of the forces that is left over in each copy: the substrate's own residual."""
        *forces, last = balances(state, lambda k: self.from_before(state, k), lambda k: self.from_after(state, k))
        if self.nudges is not None:
            last += self.each(lambda nudge, o: nudge.pull(o), state[-1])
        return jax.vmap(left_over)((*forces, last), self.scale(state))

    def scale(self, state: State) -> State:
        """The sizes of the forces that meet at each unit, with the couplings and biases at their knobs."""
        meet = lambda field, s: meeting_layers(field, self.knobs.bias, self.strengths, s)
        return jax.vmap(meet)(added(self.knobs.bias[0], self.driven), state)

    def convex(self, state: State) -> Bool[Array, ""]:
        """Whether the couplings at their knobs show that the energy is convex; how they yield is not counted."""
        least = 0.0 if self.nudges is None else jnp.min(self.each(least_stiffness, state[-1]))
        return chain_is_convex(self.knobs.coupling[1:], 1 + least)

    def energy(self, state: State) -> Float[Array, "batch"]:
        """The total energy of each copy at the couplings at rest."""
        total = jnp.zeros(self.batch, state[0].dtype)
        for k, s in enumerate(state):
            total += jnp.sum(0.5 * s**2 - self.from_before(state, k) * s, axis=1)
        return total if self.nudges is None else total + self.each(lambda nudge, o: nudge.energy(o), state[-1])

    def runaway(self, state: State) -> Bool[Array, "batch"]:
        """Whether a negative nudge pushes an output of a copy harder than its own energy o^2/2 holds it."""
        if self.nudges is None:
            return jnp.zeros(self.batch, bool)
        return self.each(lambda nudge, o: jnp.any(1 + nudge.stiffness(o) <= 0), state[-1])

    def at_rest(self, state: State) -> Layered:
        """The network with its couplings and biases at rest."""
        befores = (self.inputs, *state[:-1])
        weights, biases = [], []
        for k, (before, s) in enumerate(zip(befores, state, strict=True)):
            share = self.yields.coupling[k].weight / self.batch
            weights.append(self.knobs.coupling[k].weight + share * (before.T @ s))
            biases.append(self.knobs.bias[k] + self.yields.bias[k] * jnp.mean(s, axis=0))
        where = lambda net: [coupling.weight for coupling in net.coupling] + list(net.bias)
        return eqx.tree_at(where, self.net, weights + biases)
