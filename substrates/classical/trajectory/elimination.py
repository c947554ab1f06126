"""Linear systems of a path: every node feels itself and its two neighbours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from substrates.classical.trajectory.action import Curvature
from substrates.solvers.batching import in_turn


def solve_path(curvature: Curvature, right: Inexact[Array, "nodes n k"]) -> Inexact[Array, "nodes n k"]:
    """H^-1 of some right-hand sides, in time and memory proportional to the number of nodes.

    A loop is folded: node k beside node nodes - 1 - k, so that neighbours are neighbours still.
    """
    if not curvature.loop:
        return _eliminate(curvature.diagonal, curvature.upper, right)
    diagonal, upper = curvature.diagonal, curvature.upper
    half = len(diagonal) // 2
    n = diagonal.shape[1]
    back = lambda blocks: blocks[::-1]
    swapped = jnp.swapaxes(upper, 1, 2)
    none = jnp.zeros_like(diagonal[:half])
    across = none.at[0].add(swapped[-1]).at[-1].add(upper[half - 1])
    folded = jnp.concatenate(
        [
            jnp.concatenate([diagonal[:half], across], axis=2),
            jnp.concatenate([jnp.swapaxes(across, 1, 2), back(diagonal[half:])], axis=2),
        ],
        axis=1,
    )
    along = jnp.concatenate(
        [
            jnp.concatenate([upper[: half - 1], none[1:]], axis=2),
            jnp.concatenate([none[1:], back(swapped[half : 2 * half - 1])], axis=2),
        ],
        axis=1,
    )
    found = _eliminate(folded, along, jnp.concatenate([right[:half], back(right[half:])], axis=1))
    return jnp.concatenate([found[:, :n], back(found[:, n:])])


def _eliminate(
    diagonal: Inexact[Array, "nodes n n"], upper: Inexact[Array, "links n n"], right: Inexact[Array, "nodes n k"]
) -> Inexact[Array, "nodes n k"]:
    """Gaussian elimination, rows exchanged within two neighbouring nodes: an action is a saddle, and the Hessian of a
    part of a path singular wherever its ends are conjugate points.
    """
    n = diagonal.shape[1]
    none, one = jnp.zeros_like(diagonal[:1]), jnp.eye(n, dtype=diagonal.dtype)[None]
    # a node of its own at the end lets one loop serve all
    lower = jnp.concatenate([jnp.swapaxes(upper, 1, 2), none])
    below = jnp.concatenate([diagonal[1:], one])
    after = jnp.concatenate([upper[1:], none, none])[: len(diagonal)]
    wanted = jnp.concatenate([right[1:], jnp.zeros_like(right[:1])])
    first = jnp.concatenate([upper, none])[0]

    def forwards(top: Array, blocks: tuple[Array, ...]) -> tuple[Array, Array]:
        sub, own, link, wish = blocks
        above = jnp.concatenate([top[:, n : 2 * n], jnp.zeros_like(own), top[:, 2 * n :]], axis=1)
        rest = jnp.concatenate([above, jnp.concatenate([own, link, wish], axis=1)])
        return in_turn(_first_columns_gone)(jnp.concatenate([top[:, :n], sub]), rest)

    def backwards(carry: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], Array]:
        next_one, next_but_one = carry
        found = row[:, 2 * n :] - row[:, :n] @ next_one - row[:, n : 2 * n] @ next_but_one
        return (found, next_one), found

    top = jnp.concatenate([diagonal[0], first, right[0]], axis=1)
    _, rows = jax.lax.scan(forwards, top, (lower, below, after, wanted))
    start = jnp.zeros_like(right[0]), jnp.zeros_like(right[0])
    return jax.lax.scan(backwards, start, rows, reverse=True)[1]


def _first_columns_gone(
    panel: Inexact[Array, "2n n"], rest: Inexact[Array, "2n m"]
) -> tuple[Inexact[Array, "n m"], Inexact[Array, "n m"]]:
    """The rows that are left when the columns of a panel are eliminated, and those that tell them by the others, both
    by partial pivoting.
    """
    n = panel.shape[1]
    order = jax.lax.linalg.lu(panel)[2]
    panel, rest = panel[order], rest[order]
    solved = jnp.linalg.solve(panel[:n], rest[:n])
    return rest[n:] - panel[n:] @ solved, solved
