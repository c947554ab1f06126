"""Elimination of the nodes of a circuit without a subtraction: stars become meshes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
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
    if between.shape[0] == 0:
        return current, grounded.real
    numbers = np.arange(between.shape[0], dtype=np.int32)
    of_node = {"mode": "promise_in_bounds", "wrap_negative_indices": False}
    nonzero = lambda total: total + (total == 0).astype(total.dtype)

    def eliminate(circuit, k):
        between, grounded, current = circuit
        row = (numbers > k).astype(between.dtype) * between.at[k].get(**of_node)
        to_ground = grounded.at[k].get(**of_node)
        total = to_ground + jnp.sum(row)
        share = row / nonzero(total)
        circuit = (
            between + share[:, None] * row[None],
            grounded + share * to_ground,
            current + share * current.at[k].get(**of_node),
        )
        return circuit, (row, total)

    (_, _, current), (rows, pivots) = jax.lax.scan(eliminate, (between, grounded, current), numbers)

    def substitute(voltages, step):
        row, arriving, pivot, place = step
        return voltages + place * ((arriving + jnp.sum(row * voltages)) / pivot), None

    steps = (rows, current, nonzero(pivots), np.eye(*between.shape, dtype=current.dtype))
    return jax.lax.scan(substitute, jnp.zeros_like(current), steps, reverse=True)[0], pivots


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
    towards = jnp.where(held[None], between, 0)
    current = jnp.where(held, voltage, current + towards @ at_held)
    grounded = jnp.where(held, 1, grounded + jnp.sum(towards, axis=1))
    return jnp.where(held[:, None] | held[None], 0, between), grounded, current
