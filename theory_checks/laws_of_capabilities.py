"""Laws of what a system says that it can do: complex nudges, pins, discrete states."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from substrates.parameters import as_complex
from substrates.solvers.meeting import or_largest
from substrates.substrate import Nudge, NudgeRefusedError, Pin, relax_batch
from theory_checks.case import Case, compiled, flat, measure, outputs, relative, relax_in_turn
from theory_checks.orders import order_law
from theory_checks.report import Law, at_most, does_not_apply

PHASES = 4
"""Complex nudges of so many phases average to none, up to the fourth power of their strength."""

OWN = "The class relaxes in a way of its own, which these attributes do not govern."


def continuation(case: Case) -> list[Law]:
    """Complex nudges continue a holomorphic system: what they show on a circle about 0 averages to the free output."""
    name = "holomorphic = said"
    if case.own_relaxation:
        return [does_not_apply(name, OWN)]
    if not case.substrate.holomorphic:
        return [_refused(case, name, case.nudge(1.0, weight=1.0), 1j)]
    if case.bounds is not None:
        return [_unsaid(name, "bounds clip the states")]
    analytic = "derivatives along i v less i times those along v, of energy, force and read beside the real axis"
    try:
        laws = [at_most(name, analytic, _bend(case), float(jnp.finfo(case.dtype).eps) ** 0.5)]
        if not case.smooth or laws[0].verdict == "fails":
            return laws
        radius = case.beta / 8
        circle = [radius * np.exp(2j * np.pi * k / PHASES) for k in range(PHASES)]
        found = [_shown(case, case.nudge(1.0), beta) for beta in circle]
    except (TypeError, ValueError) as error:
        return [_unsaid(name, str(error).splitlines()[0])]
    shown = case.shown
    moved = float(np.max(np.abs(found[0] - shown)))
    gap = float(np.max(np.abs(sum(found) / PHASES - shown)))
    size = float(np.max(np.abs(shown))) + moved
    # the first power that does not average to nothing, with room for singularities half as far as the natural strength
    bound = moved / 4**3 + case.resolution * size
    laws.append(at_most(name, f"mean of outputs under {PHASES} complex nudges against the free output", gap, bound))
    return laws


def _unsaid(name: str, why: str) -> Law:
    return Law(name, f"complex numbers in energy, force and read: {why}. Say holomorphic = False", "fails")


def _bend(case: Case) -> float:
    """How far the equations of Cauchy and Riemann are missed, as a part of the derivatives."""
    along, aside = np.random.default_rng(0).standard_normal((2, case.variables)).astype(case.dtype)
    return float(_missed(case.substrate, case.free.state, case.xs, along, aside))


@compiled
def _missed(substrate, states, xs, along, aside):
    state, x = jax.tree.map(lambda leaf: leaf[0], (states, xs))
    system, (position, unravel), way = as_complex(substrate), ravel_pytree(as_complex(state)), as_complex(along)
    size = or_largest(jnp.max(jnp.abs(position), initial=0.0))
    beside, worst = position + 1e-3j * as_complex(size * aside), jnp.zeros((), size.dtype)
    for function in [system.force, system.read] + ([system.energy] if system.conservative else []):
        shown = lambda s, f=function: ravel_pytree(f(unravel(s), as_complex(x)))[0]
        straight, turned = (jax.jvp(shown, (beside,), (factor * way,))[1] for factor in (1, 1j))
        largest = jnp.max(jnp.abs(straight), initial=0.0)
        miss = jnp.max(jnp.abs(turned - 1j * straight), initial=0.0)
        worst = jnp.maximum(worst, miss / jnp.where(largest > 0, largest, 1.0))
    return worst


@compiled
def _shown_beside(substrate, states, xs):
    return jax.vmap(as_complex(substrate).read)(states, as_complex(xs))


def _shown(case: Case, nudge: Nudge, beta: complex):
    wide = jnp.asarray(beta, np.result_type(case.dtype, np.complex64))
    nudge = eqx.tree_at(lambda n: n.beta, nudge, wide)
    found = relax_in_turn(case.substrate, case.xs, nudge, case.free.state, case.keys)
    return _shown_beside(case.substrate, found.state, case.xs)


def _refused(case: Case, name: str, nudge: Nudge | Pin, beta: complex | None = None) -> Law:
    what = "a complex beta" if beta else "a pin"
    try:
        if beta:
            nudge = eqx.tree_at(lambda n: n.beta, nudge, jnp.asarray(beta))
        relax_batch(case.substrate, case.xs, nudge, case.free.state, case.keys)
    except NudgeRefusedError:
        return at_most(name, f"{what} that is not refused, of a class that cannot take it", 0.0, 0.0)
    return at_most(name, f"{what} that is not refused, of a class that cannot take it", 1.0, 0.0)


def pinning(case: Case) -> list[Law]:
    """Outputs are held at a pin that a weak nudge shows to be within reach, or pins are refused."""
    name = "pins = said"
    if case.own_relaxation:
        return [_own_pins(case, name)]
    if not case.substrate.pins:
        return [_refused(case, name, Pin(case.shown))]
    nudged = case.settle(case.nudge(case.beta / 4))
    within = outputs(case.substrate, nudged.state, case.xs)
    if not np.all(nudged.usable):
        return [does_not_apply(name, "No weak nudge settles, which would show what is within reach.")]
    held = relax_in_turn(case.substrate, case.xs, Pin(within), case.free.state, case.keys)
    worst = _off(case, held.state, within) if np.all(held.usable) else float("inf")
    return [at_most(name, "outputs held at what a weak nudge made them show", worst, case.resolution)]


def _own_pins(case: Case, name: str) -> Law:
    """A class that relaxes in a way of its own holds outputs at a pin, or takes none."""
    within = outputs(case.substrate, case.settle(case.nudge(case.beta / 4)).state, case.xs)
    moved = float(np.max(np.abs(within - case.shown)))
    if not moved > case.resolution * float(np.max(np.abs(within))):
        return does_not_apply(name, "No weak nudge moves an output, which would show what is within reach.")
    try:
        held = relax_in_turn(case.substrate, case.xs, Pin(within), case.free.state, case.keys)
    except (NudgeRefusedError, NotImplementedError, TypeError, ValueError, AttributeError) as error:
        return does_not_apply(name, f"{OWN} It takes no pin: {str(error).splitlines()[0]}")
    if not np.all(held.usable):
        return does_not_apply(name, f"{OWN} Under a pin it says that it did not settle.")
    compared = "outputs held at what a weak nudge made them show"
    return at_most(name, compared, _off(case, held.state, within), case.resolution)


def _off(case: Case, states: PyTree, within: np.ndarray) -> float:
    """How far outputs are from where they should be held, as a part of that, or as it is where that is 0."""
    gap = np.max(np.abs(outputs(case.substrate, states, case.xs) - within), initial=0.0)
    return float(gap) / (float(np.max(np.abs(within), initial=0.0)) or 1.0)


def linearity(case: Case) -> list[Law]:
    """Where the energy is said to be linear in its parameters, what each measures at given states depends on none."""
    name = "linear in parameters = said"
    if not case.substrate.linear_in_parameters:
        return [does_not_apply(name, "The class does not say that its energy is linear in every parameter.")]
    states = case.free.state if case.discrete else case.nearby(42)
    here = measure(case.substrate, states, case.xs, case.nudge(0.0))
    there = measure(case.shifted(case.direction(43), 0.5), states, case.xs, case.nudge(0.0))
    return [
        at_most(
            name, "measurements with other parameters, at the same states", relative(there, here), 1e3 * case.epsilon
        )
    ]


@compiled
def _measured_from(substrate, free, states, xs, nudges):
    return substrate.measure_from(free, states, xs, as_complex(nudges))


def analytic_order(case: Case) -> list[Law]:
    """With N nudges on a complex circle of radius r the estimate of holomorphic systems errs by r^N."""
    name = f"EP on a circle of {PHASES}: error ~ beta^{PHASES}"
    if case.own_relaxation or not case.substrate.holomorphic or case.bounds is not None:
        return [does_not_apply(name, "The class takes no complex nudges.")]
    if not case.smooth or not np.linalg.norm(flat(case.reference)):
        return [does_not_apply(name, "The exact gradient is zero, or does not exist.")]
    radii = [case.beta / 2**k for k in range(1, 9)]
    try:
        errors = [relative(_on_circle(case, radius), case.reference) for radius in radii]
    except (TypeError, ValueError):
        return [does_not_apply(name, "It takes no complex nudges, though it says so: see the law above.")]
    return [order_law(name, radii, errors, PHASES, 1e3 * case.epsilon**0.75)]


def _on_circle(case: Case, radius: float):
    total = None
    for turn in np.exp(2j * np.pi * np.arange(PHASES) / PHASES):
        wide = jnp.asarray(radius * turn, np.result_type(case.dtype, np.complex64))
        nudge = eqx.tree_at(lambda n: n.beta, case.nudge(1.0), wide)
        found = relax_in_turn(case.substrate, case.xs, nudge, case.free.state, case.keys)
        shown = _measured_from(case.substrate, case.free.state, found.state, case.xs, nudge)
        part = jax.tree.map(lambda leaf, t=turn: np.real(leaf * np.conj(t)) / (PHASES * radius), shown)
        total = part if total is None else jax.tree.map(np.add, total, part)
    return total


def discreteness(case: Case) -> list[Law]:
    """States that are discrete stay as they are under a nudge too weak to flip anything; others follow it."""
    name = "discrete = said"
    weak = case.settle(case.nudge(1e-9 * case.beta))
    same = all(bool(np.all(a == b)) for a, b in zip(*map(jax.tree.leaves, (weak.state, case.free.state)), strict=True))
    if case.substrate.discrete:
        return [at_most(name, "states that a nudge of 1e-9 of the natural strength moves", float(not same), 0.0)]
    leaves = jax.tree.leaves(case.free.state)
    few = all(np.unique(np.abs(leaf)).size == 1 for leaf in leaves) and not case.smooth
    return [at_most(name, "states of one magnitude without a response, of a class that says they are not", few, 0.0)]
