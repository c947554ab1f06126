"""What the layers of a Hopfield network feel, where they rest, and when they are still, for every solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.activation import HARD, Unit
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import System
from substrates.wiring import Convolution, Dense, Strength, added

State = tuple[Float[Array, "..."], ...]

BATCH = 32
"""So many sweeps are measured against the forces that met at each unit before them."""

NARROW = 32
"""So many nodes of a group let its coupling be multiplied with itself, to bound its norm more tightly."""


NOTHING = 1e-30
"""Activities have no unit, and units that nothing acts on come to rest within so little of 0."""


class Layered(System, Protocol):
    """What solvers see of a Hopfield network."""

    @property
    def coupling(self) -> tuple[Dense | Convolution, ...]: ...
    @property
    def bias(self) -> tuple[Array, ...]: ...
    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def unit(self) -> Unit: ...
    def clamped(self, x: Array) -> Array: ...


def meeting_layers(
    field: Array, bias: State, strengths: tuple[Strength, ...], state: State, unit: Unit = HARD
) -> State:
    """The sizes of what meets at each unit: its own state, its bias or input field, and its neighbours."""
    sizes, before = [], None
    sent = [*(unit.sent(s) for s in state[:-1]), state[-1]]
    for k, s in enumerate(state):
        felt = jnp.abs(field) if before is None else added(jnp.abs(bias[k]), strengths[k - 1].forward(before))
        size = added(jnp.abs(s), felt + NOTHING)
        sizes.append(added(size, strengths[k].backward(sent[k + 1], s.shape)) if k + 1 < len(state) else size)
        before = sent[k]
    return tuple(sizes)


def balances(state: State, before: Callable[[int], Array], after: Callable[[int], Array], unit: Unit = HARD) -> State:
    """What moves each layer, given what comes from before and after: hidden units within bounds, outputs freely."""
    forces = []
    for k, s in enumerate(state):
        force = before(k) - s
        forces.append(unit.within(force + after(k), s) if k + 1 < len(state) else force)
    return tuple(forces)


def output_at_rest(o: Float[Array, "outputs"], a: Float[Array, "outputs"], nudge: Nudge | Pin | None) -> Array:
    """Where the outputs go that feel the field a, from o; see `BlockDescent`."""
    if nudge is None:
        return a
    if isinstance(nudge, Pin):
        return o
    pull, stiffness = nudge.pull_and_stiffness(o)
    curvature = 1 + stiffness
    step = (a - o + pull) / jnp.where(jnp.real(curvature) > 0, curvature, 1)
    if (nudge.affine and nudge.separable) or jnp.iscomplexobj(o):
        return o + step
    energy = lambda o: jnp.sum(0.5 * o**2 - a * o) + nudge.energy(o)
    size = jnp.sum(0.5 * o**2 + jnp.abs(a * o)) + jnp.abs(nudge.energy(o))
    return o + downhill(lambda t: energy(o + t * step), energy(o), size) * step


def downhill(energy: Callable[[Array], Array], value: Array, size: Array) -> Array:
    """The largest of 1, 1/2, 1/4, ... at which an energy does not exceed a value, or 0.

    `size` is the sum of the magnitudes of its terms, which bounds its rounding.
    """
    slack = 8 * jnp.finfo(size.dtype).eps * size
    uphill = lambda t: (energy(t) > value + slack) & (t > 1e-6)
    fraction = jax.lax.while_loop(uphill, lambda t: t / 2, jnp.ones_like(size))
    return jnp.where(fraction > 1e-6, fraction, 0)


def one_over(scale: State) -> State:
    """1/scale; 0 where nothing meets yet, which the residual sees to once something does."""
    return jax.tree.map(lambda size: jnp.where(meets(size), 1 / size, 0), scale)


def meets(size: Array) -> Array:
    """Whether anything meets at each unit."""
    return size > 2 * NOTHING


def restless(before: Array, change: Array, level: Array) -> Array:
    """Whether sweeps that change a state by one part, then by another, have farther to go than a tolerance allows.

    The changes shrink by rho = change/before, so that change rho/(1 - rho) is still to come. A state may be off by
    eps^(-1/4)/2 times the tolerance of its forces: 2 eps^(1/2) in a free phase. At first `before` is 0.
    """
    reach = float(jnp.finfo(level.dtype).eps) ** -0.25 / 2
    return (change > level) | (change**2 > reach * level * (before - change))


def pushed_aside(
    state: State, scale: State, size: Array, key: PRNGKeyArray | None, step: Array, unit: Unit = HARD
) -> State:
    """A state off by some part of the forces that meet at each unit, in a direction that the step and the key draw.

    Where nothing meets, by that part of the activity 1.
    """
    scale = jax.tree.map(lambda m: jnp.where(meets(m), m, 1), scale)
    key = jax.random.fold_in(jax.random.key(0) if key is None else key, step)
    *hidden, outputs = [
        s + size * m * jax.random.uniform(k, s.shape, s.dtype, -1, 1)
        for k, s, m in zip(jax.random.split(key, len(state)), state, scale, strict=True)
    ]
    return (*(unit.at_rest(s) for s in hidden), outputs)


def chain_is_convex(couplings: Sequence[Dense | Convolution], held: Array | float, own: float = 1.0) -> Array:
    """Whether the norms of couplings show that layers of curvature `own`, the last of `held`, have a convex energy.

    Layers joined in a chain by norms w_k cost at least what a chain of single units joined by w_k costs, whose pivots
    own - w_k^2/pivot are positive.
    """
    pivot: Array | float = own
    convex = jnp.asarray(True)
    for k, coupling in enumerate(couplings, 1):
        lost = squared_norm(coupling) / jnp.where(pivot > 0, pivot, 1)
        pivot = (held if k == len(couplings) else own) - lost
        convex &= pivot > 0
    return convex


def squared_norm(coupling: Dense | Convolution) -> Float[Array, ""]:
    """A bound of the largest squared singular value of a coupling.

    Of a dense one |W'W|_F, or |W|_F^2 where both groups are wide; of a convolution the largest sum along a row times
    the largest along a column (Schur), a quarter of it with average pooling. Soft pooling has no bound.
    """
    weight = coupling.weight
    if isinstance(coupling, Dense):
        narrow = weight if weight.shape[1] <= weight.shape[0] else weight.T
        return jnp.linalg.norm(narrow.T @ narrow) if narrow.shape[1] <= NARROW else jnp.sum(weight**2)
    if coupling.pooling == "soft":
        return jnp.asarray(jnp.inf, weight.dtype)
    sizes = jnp.abs(weight)
    bound = jnp.max(jnp.sum(sizes, (0, 1, 2))) * jnp.max(jnp.sum(sizes, (0, 1, 3)))
    return bound / 4 if coupling.pooling == "average" else bound


def least_stiffness(nudge: Nudge | Pin | None, output: Array) -> Array | float:
    """A bound of the lowest curvature that a nudge adds to the outputs (Gershgorin)."""
    if not isinstance(nudge, Nudge):
        return 0.0
    if nudge.separable:
        return jnp.min(nudge.stiffness(output))
    curvature = nudge.curvature(output)
    own = jnp.diagonal(curvature)
    return jnp.min(own + jnp.abs(own) - jnp.sum(jnp.abs(curvature), axis=1))
