"""How a physical system answers to a nudge, and whether that fits its answers to the knobs: measured from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from learning.operator import Operator
from learning.probing import DEFECT, HIDDEN, Defect, Probing, Rest
from substrates.laboratory.system import Reading
from substrates.substrate import Cost

Array = np.ndarray

_WAY = 0.1
"""How far a nudge should pull the outputs towards the target."""

_TRIES = 12
"""How many strengths are tried on the way to the right one, and then for a linear answer."""


@dataclass(frozen=True)
class Nudging:
    """How a system answers to nudges of +-beta, its knobs at rest.

    Attributes:
        beta: the strength.
        outputs, parameters: how far the nudge +beta moves them beyond -beta, halved.
        force: -beta dC/do of +beta less that of -beta, halved, mean over copies, shape (outputs of all copies,).
        cost: without a nudge.
        pull: the part of the way to the target that a nudge +beta makes, halved difference as above.
        asymmetry: |o(beta) + o(-beta) - 2 o(0)| / |o(beta) - o(-beta)|.
        asymmetry_noise: what noise may add to that.
    """

    beta: float
    outputs: Float[Array, "all_outputs"]
    parameters: Float[Array, "parameters"]
    force: Float[Array, "all_outputs"]
    cost: float
    pull: float
    asymmetry: float
    asymmetry_noise: float

    @property
    def output_gain(self) -> float:
        """The length of d output/d beta."""
        return float(np.linalg.norm(self.outputs)) / self.beta

    @property
    def parameter_gain(self) -> Float[Array, "parameters"]:
        """d theta/d beta."""
        return self.parameters / self.beta


def probe_nudge(
    operator: Operator, free: Rest, y: Float[Array, "*copies outputs"], cost: Cost, linear: float
) -> Nudging:
    """Finds the strongest nudges +-beta that outputs answer linearly, up to a tenth of the way, and what they do."""
    shown = free.reading.outputs
    far = (y - shown).ravel()
    distance = float(np.linalg.norm(far))
    if not distance > free.output_bound:
        raise ValueError(
            f"y: wanted a target that the system does not show anyway, got one within {distance:.2g} of its outputs, "
            f"where noise reaches {free.output_bound:.2g}: choose another, or read more finely"
        )
    floor = free.output_bound / distance
    beta = _strength(operator, y, lambda reading: float((reading.outputs - shown).ravel() @ far) / distance**2, floor)
    first, calm = _nudged(operator, free, y, cost, far, beta)
    tried, good, bad = first, None, np.inf
    for _ in range(_TRIES):
        if calm and tried.asymmetry <= linear + tried.asymmetry_noise:
            good = tried
        else:
            bad = tried.beta
        if good is None:
            beta = tried.beta * (float(np.clip(0.8 * linear / tried.asymmetry, 0.1, 0.8)) if calm else 0.25)
        elif np.isfinite(bad) and bad > 2 * good.beta and good.asymmetry < linear / 3:
            beta = float(np.sqrt(good.beta * bad))
        else:
            return good
        tried, calm = _nudged(operator, free, y, cost, far, beta)
        if tried.asymmetry_noise > linear:  # weaker nudges tell nothing
            break
    return good or first


def nudge_reciprocity(
    free: Rest, probing: Probing, nudging: Nudging, softness: Float[Array, "knobs"]
) -> tuple[Defect | None, float | None, float | None]:
    """(defect, epsilon, progress) of <v/c, dtheta(nudge)> = epsilon <df, do(v)>; None where noise hides them."""
    left, right = (probing.turns / softness) @ nudging.parameters, probing.outputs @ nudging.force
    size, square = float(np.linalg.norm(left)), float(right @ right)
    noise = free.parameter_resolution * float(np.linalg.norm(probing.turns / softness)) / 2**0.5
    output_noise = free.output_resolution * float(np.linalg.norm(nudging.force)) * (2 * left.size) ** 0.5
    if not (size > 0 and square > 0):
        return None, None, None
    share = float(np.hypot(noise / size, output_noise / square**0.5))
    if share > HIDDEN:
        return None, None, None
    epsilon = float(left @ right) / square
    defect = Defect(float(np.linalg.norm(left - epsilon * right)) / size, DEFECT + 3 * share)
    if not epsilon > 0:
        return defect, epsilon, None
    drop = 2 * float(np.sum(nudging.parameters**2 / softness)) / (epsilon * nudging.beta)
    return defect, epsilon, drop / nudging.cost if nudging.cost > 0 else None


def each(function: Callable, outputs: Float[Array, "copies outputs"], targets: Float[Array, "copies outputs"]) -> Array:
    """A cost, or its slope, copy by copy."""
    return np.asarray(jax.vmap(function)(jnp.asarray(outputs), jnp.asarray(targets)), float)


def _nudged(operator: Operator, free: Rest, y: Array, cost: Cost, far: Array, beta: float) -> tuple[Nudging, bool]:
    """What nudges +-beta do, and whether the system came to rest under both."""
    plus, calm = operator.settle(None, y, beta), operator.at_rest
    minus = operator.settle(None, y, -beta)
    shown, copies = free.reading.outputs, operator.system.spec.copies or 1
    odd, even = (plus.outputs - minus.outputs).ravel(), (plus.outputs + minus.outputs - 2 * shown).ravel()
    size = max(float(np.linalg.norm(odd)), np.finfo(float).tiny)
    rows = lambda values: values.reshape(copies, -1)
    slope = lambda reading: each(jax.grad(cost), rows(reading.outputs), rows(y)).ravel() / copies
    nudging = Nudging(
        beta,
        odd / 2,
        (plus.parameters - minus.parameters) / 2,
        -beta * (slope(plus) + slope(minus)) / 2,
        float(np.mean(each(cost, rows(shown), rows(y)))),
        float(odd @ far) / (2 * float(far @ far)),
        float(np.linalg.norm(even)) / size,
        (6 * odd.size) ** 0.5 * free.output_resolution / size,
    )
    return nudging, calm and operator.at_rest


def _strength(operator: Operator, y: Array, way: Callable[[Reading], float], floor: float) -> float:
    """The beta at which a nudge pulls the outputs a tenth of the way, w: w/(1 - w) grows in proportion to it."""
    beta, wanted = 1e-3, min(max(_WAY, 3 * floor), 0.5)
    wanted /= 1 - wanted
    for _ in range(_TRIES):
        made = way(operator.settle(None, y, beta))
        if not operator.at_rest or made > 1 + floor:
            beta /= 10
        elif abs(made) <= floor:
            beta *= 30
        else:
            ratio = wanted * max(1 - made, 1e-3) / abs(made)
            beta *= float(np.clip(ratio, 1e-3, 1e3))
            if 0.7 < ratio < 1.5:
                break
    return beta
