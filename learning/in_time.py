"""Equilibrium propagation and back-propagation through time, step by step: a comparison that looks inside, like the
references in `unrolled`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.pictures import draw_in_time
from learning.reference import check_state
from learning.rule import Estimate, check_positive, require_usable
from substrates.substrate import (
    Cost,
    DiscreteTime,
    Nudge,
    Substrate,
    as_tree,
    batch_axes,
    check_count,
    fit_target,
    split_parameters,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class UpdatesInTime(eqx.Module):
    """What each step t of a nudged phase adds, beside what back-propagation finds t steps before the end of a free one.

    Attributes:
        state_update: D_s(t), a tree like a batch of states with a leading axis of steps.
        state_gradient: G_s(t), likewise.
        update: D_theta(t), mean over the batch, a tree like the substrate with a leading axis of steps.
        gradient: G_theta(t), likewise.

    Updates are to be compared with minus the gradients.
    """

    state_update: PyTree
    state_gradient: PyTree
    update: PyTree
    gradient: PyTree

    def errors(self) -> dict[str, float]:
        """|D + G| / |G| of every layer of the state and of every parameter, all steps together, by their paths."""
        size = np.linalg.norm
        return {name: float(size(d + g) / (size(g) or 1.0)) for name, (d, g) in self._pairs().items()}

    def errors_in_time(self) -> dict[str, Float[np.ndarray, "steps"]]:
        """|D(t) + G(t)| / max_t |G(t)|, likewise, for each step."""
        sizes = lambda a: np.linalg.norm(a.reshape(len(a), -1), axis=1)
        return {name: sizes(d + g) / (sizes(g).max() or 1.0) for name, (d, g) in self._pairs().items()}

    def sign_agreement(self) -> dict[str, float]:
        """The part of the entries whose update has the sign of minus the gradient, summed over the steps: 1 is best.

        Entries with neither an update nor a gradient, as those of units that a bound holds, do not count; NaN where
        none is left. Strengths of nudges and numbers of steps with a high agreement train well.
        """
        agreed = {}
        for name, (d, g) in self._pairs().items():
            d, g = d.sum(axis=0), g.sum(axis=0)
            counted = (d != 0) | (g != 0)
            agreed[name] = float(np.mean(np.sign(d[counted]) == -np.sign(g[counted]))) if counted.any() else np.nan
        return agreed

    def draw(self, name: str, entries: int = 5, ax: Axes | None = None) -> Axes:
        """Draws the entries of one layer or parameter that change most: updates as lines, minus gradients as dots.

        Args:
            name: a path, as in `errors`.
            entries: the most of them.
            ax: where to draw; None opens a new figure.

        Raises ValueError for another name.
        """
        pairs = self._pairs()
        if name not in pairs:
            raise ValueError(f"name: wanted one of {', '.join(pairs)}, got {name!r}")
        update, gradient = pairs[name]
        return draw_in_time(update, -gradient, name, entries, ax)

    def _pairs(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(D, G) of each layer and parameter by its path."""

        def named(prefix: str, tree: PyTree) -> dict[str, np.ndarray]:
            leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
            return {prefix + jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

        updates = named("state", self.state_update) | named("", self.update)
        gradients = named("state", self.state_gradient) | named("", self.gradient)
        return {name.lstrip("."): (updates[name], gradients[name]) for name in updates}


def updates_in_time(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    beta: float,
    steps: int,
    *,
    solver: DiscreteTime | None = None,
    cost: Cost | None = None,
    free_steps: int = 300,
    key: PRNGKeyArray | None = None,
    strict: bool = True,
) -> UpdatesInTime:
    """The updates of equilibrium propagation at each step of a nudged phase, and the gradients of back-propagation.

    Let s_(t+1) = M(s_t, theta) be the steps of `DiscreteTime`, s_T the last state of a free phase that has settled, and
    L = C(s_T). Then the nudged phase s_0 = s_T, s_1, s_2, ... has

        D_s(t) = (s_(t+1) - s_t) / beta,       D_theta(t) = -[dF/dtheta(s_(t+1)) - dF/dtheta(s_t)] / beta,

    and back-propagation through the last free steps, each with its own parameters theta_t and forces p_t = 0 on the
    variables,

        G_s(t) = dL/dp_(T-t),                  G_theta(t) = dL/dtheta_(T-t).

    Where the system has an energy, and is settled, in both settings of `DiscreteTime` and with bounds too,

        D_s(t) = -G_s(t) + O(beta),            D_theta(t) = -G_theta(t) + O(beta)     for every t:

    the gradient-descending updates (GDU). Summed over t, that is recurrent back-propagation. Without an energy
    (connections that are not symmetric) it fails at any beta from the second or third step on.

    The original has G_s = dL/ds_(T-t), the same where the steps are s <- dPhi/ds. Elsewhere a force moves a variable by
    dt/K times as much, and not at all where a bound holds it, and so do the steps of the nudged phase.

    It looks inside: it differentiates the steps and computes with states, which no experimenter can.

    Args:
        substrate, x, y, key: as for an estimate.
        beta: the strength of the nudge; it may be negative.
        steps: how many, t = 0, ..., steps - 1.
        solver: the steps; by default `DiscreteTime()`, prototypical with dt = 1.
        cost: a callable (output, target) -> scalar; by default the squared error.
        free_steps: how many the system makes after its own relaxation, before those that are looked back through: what
            is left of the forces, over beta, is an error of the updates.
        strict: raise `ConvergenceError` for a free equilibrium that did not converge.

    Raises TypeError for states that are not real floating-point numbers.

    Source: Ernoult, Grollier, Querlioz, Bengio and Scellier 2019, arXiv 1905.13633.
    """
    check_positive("beta", abs(beta))
    check_count("steps", steps)
    check_count("free_steps", free_steps, 0)
    judged: Cost = as_tree(SquaredError() if cost is None else cost)
    x, y = ready_batch(substrate, x, y, judged, key)
    solver = DiscreteTime() if solver is None else solver
    numbers, ready = (jnp.asarray(beta), jnp.asarray(free_steps), steps), jax.tree.map(jnp.asarray, solver)
    found, free = _made(ready, substrate, x, y, judged, numbers, key)
    if strict:
        require_usable(free, substrate)
    return found


@eqx.filter_jit
def _made(
    solver: DiscreteTime,
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    cost: Cost,
    numbers: tuple[Array, Array, int],
    key: PRNGKeyArray | None,
) -> tuple[UpdatesInTime, Estimate]:
    free, output, _ = free_phase(substrate, x, key)
    check_state("updates_in_time", substrate, free.state)
    y = fit_target(y, output, cost, name="y", batched=True)
    batch, (beta, free_steps, steps) = len(output), numbers
    beta = beta.astype(output.dtype)
    parameters, rest = split_parameters(substrate)

    def moved(parameters: PyTree, states: PyTree, push: PyTree | None, nudge: Nudge | None) -> PyTree:
        step = lambda s, x, p, n: solver.step(eqx.combine(parameters, rest), s, x, n, p)
        axes = (0, 0, None if push is None else 0, batch_axes(nudge))
        return jax.vmap(step, in_axes=axes)(states, x, push, nudge)

    def free_step(states: PyTree, _: None) -> tuple[PyTree, PyTree]:
        return moved(parameters, states, None, None), states

    settled = jax.lax.fori_loop(0, free_steps, lambda _, states: free_step(states, None)[0], free.state)
    last, before = jax.lax.scan(free_step, settled, None, steps)

    def total_cost(parameters: PyTree, states: PyTree) -> Float[Array, ""]:
        system = eqx.combine(parameters, rest)
        return jnp.sum(jax.vmap(lambda s, x, y: cost(system.read(s, x), y))(states, x, y))

    of_reading, error = jax.grad(total_cost, (0, 1))(parameters, last)

    def back(carry: tuple[PyTree, PyTree], states: PyTree) -> tuple[tuple[PyTree, PyTree], tuple[PyTree, PyTree]]:
        error, more = carry
        none = jax.tree.map(jnp.zeros_like, states)
        transpose = jax.vjp(lambda p, s, push: moved(p, s, push, None), parameters, states, none)[1]
        of_parameters, of_state, of_push = transpose(error)
        mean = jax.tree.map(lambda g, m: (g + m) / batch, of_parameters, more)
        return (of_state, jax.tree.map(jnp.zeros_like, more)), (of_push, mean)

    state_gradient, gradient = jax.lax.scan(back, (error, of_reading), before, reverse=True)[1]
    backwards = lambda tree: jax.tree.map(lambda leaf: leaf[::-1], tree)

    def nudged_step(carry: tuple[PyTree, Array], _: None) -> tuple[tuple[PyTree, Array], tuple[PyTree, PyTree]]:
        states, felt = carry
        nudge, weaker = Nudge(cost, y, beta), Nudge(cost, y, felt)
        after = moved(parameters, states, None, nudge)
        contrast = split_parameters(substrate.contrast(after, states, x, nudge, weaker))[0]
        of_state = jax.tree.map(lambda new, old: (new - old) / beta, after, states)
        return (after, beta), (of_state, jax.tree.map(lambda leaf: -leaf / beta, contrast))

    state_update, update = jax.lax.scan(nudged_step, (last, 0 * beta), None, steps)[1]
    found = UpdatesInTime(state_update, backwards(state_gradient), update, backwards(gradient))
    mean_cost = jnp.mean(jax.vmap(cost)(output, y))
    return found, Estimate(None, mean_cost, output, (free,), relaxations=1)
