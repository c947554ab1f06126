"""To and from dimod's binary quadratic models, whose energy has the opposite sign."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from substrates.classical.ising.build import from_edges
from substrates.nudge import Nudge

if TYPE_CHECKING:
    from substrates.classical.ising.graph import SpinGraph
    from substrates.classical.ising.model import IsingModel


class Terms(NamedTuple):
    """E = offset + sum_i linear_i s_i + sum_k quadratic_k s_i s_j over pairs k = (i, j), dimod's sign.

    `misfit` is how far a nudge's cost is from quadratic, the largest error at random outputs: rounding if it is.
    """

    linear: Float[Array, "free"]
    pairs: Int[np.ndarray, "m 2"]
    quadratic: Float[Array, "m"]
    offset: Float[Array, ""]
    misfit: Float[Array, ""]


def terms(model: IsingModel, x: Float[Array, "inputs"], nudge: Nudge | None = None) -> Terms:
    """The total energy at an input as numbers per free spin and pair, numbered as in the flattened state."""
    start = model.initial_state(x)
    flat, unravel = ravel_pytree(start)
    linear = -ravel_pytree(model.local_field(jax.tree.map(jnp.zeros_like, start), x))[0]
    pairs, couplings = model.free_couplings()
    quadratic = -couplings
    ones = jnp.ones_like(flat)
    offset = model.energy(unravel(ones), x) - jnp.sum(linear) - jnp.sum(quadratic)
    misfit = jnp.zeros_like(offset)
    if nudge is not None:
        with jax.ensure_compile_time_eval():
            at = model.output_spins(unravel(jnp.arange(flat.size, dtype=flat.dtype)))
            places = np.asarray(at, int).ravel()
        cost = lambda spins: nudge.energy(model.shown(spins.reshape(at.shape)))
        constant, slope, curvature, misfit = _quadratic(cost, places.size, flat.dtype)
        i, j = np.triu_indices(places.size, 1)
        linear = linear.at[places].add(slope)
        pairs = np.concatenate([pairs, np.stack([places[i], places[j]], axis=1)])
        quadratic = jnp.concatenate([quadratic, curvature])
        offset = offset + constant
    return Terms(linear, pairs, quadratic, offset, misfit)


def _quadratic(cost: Any, n: int, dtype: Any) -> tuple[Array, Array, Array, Array]:
    """The c, l, q of cost(s) = c + sum_i l_i s_i + sum_(i<j) q_ij s_i s_j, from few flips, and the error elsewhere."""
    base = jnp.ones(n, dtype)
    flipped = lambda places: base.at[places].set(-1)
    none = cost(base)
    one = jax.vmap(lambda k: cost(flipped(k)))(jnp.arange(n)) - none
    i, j = np.triu_indices(n, 1)
    both = jax.vmap(lambda a, b: cost(base.at[a].set(-1).at[b].set(-1)))(jnp.asarray(i), jnp.asarray(j)) - none
    # flipping i and j leaves q_ij as it is, flipping one of them turns it round
    q = (both - one[i] - one[j]) / 4
    slope = -one / 2 - jnp.zeros(n, dtype).at[i].add(q).at[j].add(q)
    c = none - jnp.sum(slope) - jnp.sum(q)
    probes = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (32, n)), dtype)
    found = c + probes @ slope + (probes[:, i] * probes[:, j]) @ q
    return c, slope, q, jnp.max(jnp.abs(found - jax.vmap(cost)(probes)))


def to_bqm(model: IsingModel, x: Any, nudge: Nudge | None) -> Any:
    """The binary quadratic model that `IsingModel.to_bqm` describes."""
    from dimod import BinaryQuadraticModel

    if nudge is not None and not isinstance(nudge, Nudge):
        raise ValueError(f"nudge: wanted a Nudge or None, got {type(nudge).__name__}; a pin is no energy")
    found = terms(model, jnp.zeros(0) if x is None else jnp.asarray(x), nudge)
    largest = lambda values: float(jnp.max(jnp.abs(values), initial=0.0))
    size = largest(found.linear) + largest(found.quadratic) + largest(found.offset)
    if float(found.misfit) > 1e4 * float(jnp.finfo(found.linear.dtype).eps) * size:
        raise ValueError(
            "nudge: wanted a cost that is at most quadratic in the output spins, got one that differs by "
            f"{float(found.misfit):.2g} from it; give the nudge `about=` the free output to replace it by its tangent"
        )
    bqm = BinaryQuadraticModel("SPIN")
    bqm.offset = float(found.offset)
    for spin, bias in enumerate(np.asarray(found.linear, float).tolist()):
        bqm.add_linear(spin, bias)
    for (i, j), bias in zip(found.pairs.tolist(), np.asarray(found.quadratic, float).tolist(), strict=True):
        bqm.add_quadratic(i, j, bias)
    return bqm


def from_bqm(bqm: Any, *, inputs: Sequence[Hashable], outputs: Sequence[Hashable]) -> SpinGraph:
    """The model that `IsingModel.from_bqm` describes."""
    import dimod

    if not isinstance(bqm, dimod.BinaryQuadraticModel):
        raise ValueError(f"bqm: wanted a dimod.BinaryQuadraticModel, got {type(bqm).__name__}")
    if not len(bqm.variables):
        raise ValueError("bqm: wanted at least one variable, got none")
    bqm = bqm.change_vartype(dimod.SPIN, inplace=False)
    number = {label: k for k, label in enumerate(bqm.variables)}
    for name, labels in (("inputs", inputs), ("outputs", outputs)):
        for label in labels:
            if label not in number:
                raise ValueError(f"{name}: wanted labels of variables of the model, got {label!r}")
    return from_edges(
        [(number[a], number[b]) for a, b in bqm.quadratic],
        len(number),
        coupling=-np.asarray(list(bqm.quadratic.values()), float),
        field=-np.asarray([bqm.linear[label] for label in bqm.variables], float),
        inputs=[number[label] for label in inputs],
        outputs=[number[label] for label in outputs],
    )
