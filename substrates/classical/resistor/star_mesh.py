"""Elimination of the nodes of a circuit without a subtraction: stars become meshes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact


def star_mesh(
    between: Inexact[Array, "n n"], grounded: Inexact[Array, " n"], current: Inexact[Array, " n"]
) -> tuple[Inexact[Array, " n"], Float[Array, " n"]]:
    """The voltages of nodes that conductances join to one another and to ground: (voltages, pivots).

    A node k with the conductances g_kj to its neighbours and g_k0 to ground, G in all, is replaced by a mesh:
    g_ij + g_ki g_kj / G between each two of them, g_i0 + g_ki g_k0 / G to ground, and g_ki / G of its current. Once the
    others are known, it stands at the mean (I_k + sum_j g_kj v_j) / G. Sums of conductances are all there is, so that
    every voltage comes out to some rounding errors of the largest, however far the conductances are apart: nothing is
    lost of a weak one beside a strong one, as it is in the diagonal of the conductance matrix.

    Args:
        between: g_ij, symmetric; the diagonal does not count.
        grounded: g_i0.
        current: into each node.

    The pivots are the G of the nodes as they are eliminated: all positive where the conductance matrix is positive
    definite (conductances below zero, from a negative nudge, are allowed), 0 for a node that nothing holds.

    Source: the star-mesh transformation, Rosen 1924; that it has no rounding to speak of, Grassmann, Taksar and Heyman
    1985 and O'Cinneide 1993, for Markov chains.
    """
    index = jnp.arange(between.shape[0], dtype=jnp.int32)

    def later(between, k):
        return jnp.where(index > k, between[k], 0)

    def eliminate(k, carry):
        between, grounded, current, pivots = carry
        row = later(between, k)
        total = grounded[k] + jnp.sum(row)
        share = row / jnp.where(total == 0, 1, total)
        between += share[:, None] * row
        return between, grounded + share * grounded[k], current + share * current[k], pivots.at[k].set(total)

    size = between.shape[0]
    first = (between, grounded, current, jnp.zeros_like(grounded))
    between, _, current, pivots = jax.lax.fori_loop(0, size, eliminate, first)

    def substitute(step, voltages):
        k = size - 1 - step
        arriving = current[k] + jnp.sum(later(between, k) * voltages)
        return voltages.at[k].set(arriving / jnp.where(pivots[k] == 0, 1, pivots[k]))

    return jax.lax.fori_loop(0, size, substitute, jnp.zeros_like(current)), pivots


def with_held(
    between: Inexact[Array, "n n"],
    grounded: Inexact[Array, " n"],
    current: Inexact[Array, " n"],
    held: Bool[Array, " n"],
    voltage: Inexact[Array, " n"],
) -> tuple[Inexact[Array, "n n"], Inexact[Array, " n"], Inexact[Array, " n"]]:
    """The same circuit with some nodes held at voltages: what they conduct to others becomes a path to ground, what
    they drive there a current.
    """
    at_held = jnp.where(held, voltage, 0)
    towards = jnp.where(held, between, 0)
    current = jnp.where(held, voltage, current + towards @ at_held)
    grounded = jnp.where(held, 1, grounded + jnp.sum(towards, axis=1))
    return jnp.where(held[:, None] | held, 0, between), grounded, current
