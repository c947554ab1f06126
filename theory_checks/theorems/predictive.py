"""Theorems of layers: predictive coding and back-propagation, and forward passes that land near an equilibrium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from learning.costs import SquaredError
from substrates.classical.hopfield import HopfieldNetwork
from substrates.classical.predictive_coding import PredictiveCodingNetwork
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.parameters import split_parameters
from substrates.substrate import Cost, Nudge, Solver
from substrates.wiring import Dense
from theory_checks.case import compiled, flat, relative
from theory_checks.theorems.measured import agreement, of_examples, require, require_kind, settled, smaller
from theory_checks.theorems.theorem import Finding, Theorem

BEFORE = 1e-3
"""The least part of a gradient that must be missing before the sweeps are as many as the layers."""


def _network(rectifier: Any) -> PredictiveCodingNetwork:
    return PredictiveCodingNetwork.dense((3, 5, 4, 4, 2), key=jax.random.key(0), gain=1.7, rectifier=rectifier)


_X, _Y = np.array([0.6, -1.1, 0.4]), np.array([1.0, 0.0])


@of_examples
def predictive_coding(
    net: PredictiveCodingNetwork | None = None,
    x: Any = None,
    y: Any = None,
    *,
    cost: Cost | None = None,
    beta: float = 1e-5,
) -> tuple[Finding, ...]:
    """That the errors of a predictive coding network over beta are minus the deltas of back-propagation, and its
    contrast the gradient of back-propagation; free, it is a forward pass without error.

    Args:
        net: four layers by default.
        x, y: the input and target of one example.
        cost: the squared error by default.
        beta: a small nudge. Bounded rectifiers answer with a bias of its first order.

    Raises NotApplicableError where the network does not settle.
    """
    cost = SquaredError() if cost is None else cost
    if net is None:
        net, x, y = _network("buffered"), _X, _Y
    require_kind(net, PredictiveCodingNetwork, "predictive coding networks")
    x, y = jnp.asarray(x), jnp.asarray(y)
    free = settled(net, x)
    deltas, wanted = _backpropagation(net, x, y, cost)
    plus, minus = (settled(net, x, Nudge(cost, y, jnp.asarray(b)), free.state).state for b in (beta, -beta))
    awake = [np.asarray(a) > 0 for a in net.drives(free.state, x)]
    awake[-1] = np.ones_like(awake[-1])
    errors = [
        np.where(on, np.asarray(p - m) / (2 * beta), 0)
        for on, p, m in zip(awake, net.errors(plus, x), net.errors(minus, x), strict=True)
    ]
    contrast = jax.tree.map(lambda leaf: leaf / (2 * beta), _contrast(net, plus, minus, x))
    return (
        agreement(
            "the free errors: a forward pass makes none", net.errors(free.state, x), [0 * d for d in deltas], 1e-12
        ),
        agreement("errors over beta against minus the deltas", errors, [-d for d in deltas], 100 * beta),
        agreement("the centred contrast against back-propagation", contrast, wanted, 100 * beta),
    )


@compiled
def _contrast(net: PredictiveCodingNetwork, plus: PyTree, minus: PyTree, x: Array) -> Any:
    batch = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)
    return net.contrast(batch(plus), batch(minus), x[None])


@compiled
def _backpropagation(net: PredictiveCodingNetwork, x: Array, y: Array, cost: Cost) -> tuple[Any, Any]:
    """dC/da of every layer of a forward pass, and dC/dtheta."""
    parameters, rest = split_parameters(net)

    def loss(parameters: Any, moves: Any) -> Array:
        system, state = eqx.combine(parameters, rest), []
        for k, move in enumerate(moves, 1):
            state.append(system.activation(k, system.drive(k, state, x) + move))
        return cost(system.read(tuple(state), x), y)

    still = jax.tree.map(jnp.zeros_like, net.predict(x))
    return jax.grad(loss, argnums=1)(parameters, still), jax.grad(loss)(parameters, still)


@of_examples
def predictive_coding_kernel(
    net: PredictiveCodingNetwork | None = None,
    x: Any = None,
    y: Any = None,
    *,
    cost: Cost | None = None,
    beta: float = 1e-5,
    sweeps: Callable[..., Any] = ProjectedGradient,
) -> tuple[Finding, ...]:
    """That sweeps over even and odd layers find the gradient after exactly as many as there are layers: K = L.

    Args:
        net: of at least two layers; the published system, with activities that are bounded, by default.
        x, y: the input and target of one example.
        cost: the squared error by default.
        beta: a small nudge.
        sweeps: makes the solver that does so many sweeps.

    Raises NotApplicableError for a single layer, and where a layer sleeps.
    """
    cost = SquaredError() if cost is None else cost
    if net is None:
        net, x, y = _network("bounded"), _X, _Y
    require_kind(net, PredictiveCodingNetwork, "predictive coding networks")
    layers = len(net.coupling)
    require(layers > 1, "With one layer there is nothing before the first sweep.")
    x, y = jnp.asarray(x), jnp.asarray(y)
    deltas, gradient = _backpropagation(net, x, y, cost)
    require(all(np.any(delta) for delta in deltas), "A layer sleeps, so that nothing passes back through it.")
    wanted = flat(gradient)
    error = lambda count: relative(flat(_swept(net, x, y, cost, sweeps(jnp.asarray(count)), jnp.asarray(beta))), wanted)
    before = np.array([error(count) for count in range(1, layers)])
    after = np.array([error(count) for count in (layers, layers + 1)])
    return (
        smaller("the error of the gradient after L and L + 1 sweeps", after, np.zeros(2), 1.0, 100 * beta),
        smaller(f"{BEFORE} against what is missing after fewer", np.full(before.shape, BEFORE), before, 1.0, 0.0),
    )


@compiled
def _swept(net: PredictiveCodingNetwork, x: Array, y: Array, cost: Cost, solver: Solver, beta: Array) -> Any:
    state = lambda strength: net.relax(x, Nudge(cost, y, strength), solver=solver).state
    batch = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)
    contrast = net.contrast(batch(state(beta)), batch(state(-beta)), x[None])
    return jax.tree.map(lambda leaf: leaf / (2 * beta), contrast)


def consistent_network(sizes: tuple[int, ...], x: Any, *, seed: int = 0) -> HopfieldNetwork:
    """A deep Hopfield network in which, at one input, hidden layers get from above what they get from below.

    Activities are drawn between 0.3 and 0.7; couplings of rank one bring what each hidden layer gets
    from below back from above, and biases hold all units at their activities.

    Args:
        sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
        x: the input, shape (inputs,).
        seed: draws the first coupling and the activities.
    """
    draw = np.random.default_rng(seed)
    activities = [np.asarray(x), *(draw.uniform(0.3, 0.7, n) for n in sizes[1:])]
    weight = 0.3 * draw.normal(size=sizes[:2]) / sizes[0] ** 0.5
    weights, biases = [], []
    for below, here, above in zip(activities, activities[1:], [*activities[2:], None], strict=False):
        up = below @ weight
        weights.append(Dense(jnp.asarray(weight)))
        biases.append(jnp.asarray(here - (1 if above is None else 2) * up))
        if above is not None:
            weight = np.outer(up, above) / np.sum(above**2)
    net = HopfieldNetwork.layered(sizes, key=jax.random.key(0))
    return eqx.tree_at(lambda n: (n.coupling, n.bias), net, (tuple(weights), tuple(biases)))


@of_examples
def feed_forward_residual(net: HopfieldNetwork | None = None, x: Any = None) -> tuple[Finding, ...]:
    """That one forward pass with doubled couplings lands as near to the equilibrium as layers predict each other well.

    The pass h_k = rho(b_k + 2 r_k), r_k = W_k h_(k-1), outputs once, puts in the place of what comes from above what
    comes from below. What is left of the balance is their difference: the force on a unit inside its bounds is
    W_(k+1)' h_(k+1) - r_k, and no unit is off its balance by more. With the least and largest curvature m and L of the
    energy the equilibrium is at most (1 + L)/m times that residual away: where both agree, the pass ends in it.

    Args:
        net: a dense Hopfield network with an energy that is convex; by default one whose layers agree.
        x: the input of one example.

    Raises NotApplicableError for convolutions, and where the energy is not convex.
    """
    if net is None:
        x = np.array([0.5, -0.8, 0.3])
        net = consistent_network((3, 5, 4, 2), x)
    require_kind(net, HopfieldNetwork, "deep Hopfield networks")
    require(all(isinstance(c, Dense) for c in net.coupling), "It is measured on dense couplings.")
    x = jnp.asarray(x)
    weights = [np.asarray(c.weight) for c in net.coupling]
    pairwise = np.zeros((sum(w.shape[1] for w in weights),) * 2)
    at = 0
    for w in weights[1:]:
        middle = at + w.shape[0]
        pairwise[at:middle, middle : middle + w.shape[1]] = -w
        at = middle
    curvatures = np.linalg.eigvalsh(np.eye(len(pairwise)) + pairwise + pairwise.T)
    require(curvatures[0] > 0, "The couplings are so strong that the energy is not convex: it may have other minima.")
    state, gaps, inside = [], [], []
    for k, (w, b) in enumerate(zip(weights, net.bias, strict=True)):
        up, last = np.asarray(state[-1] if state else net.clamped(x)) @ w, k == len(weights) - 1
        felt = np.asarray(b) + (1 if last else 2) * up
        state.append(felt if last else np.clip(felt, 0, 1))
        inside.append(np.ones_like(felt, bool) if last else (felt > 0) & (felt < 1))
        gaps.append(0 * up if last else -up)
    for k, w in enumerate(weights[1:]):
        gaps[k] = gaps[k] + w @ state[k + 1]
    passed = tuple(jnp.asarray(s) for s in state)
    gap, within = flat(gaps), flat(inside).astype(bool)
    force, off = flat(net.force(passed, x)), np.abs(flat(net.stationarity(passed, x)))
    apart = np.linalg.norm(flat(settled(net, x).state) - flat(state))
    reach = (1 + curvatures[-1]) / curvatures[0] * np.linalg.norm(off)
    size = float(np.linalg.norm(flat(state)))
    missed = float(np.linalg.norm((force - gap)[within])) / size
    return (
        Finding(
            "forces after the pass against what comes from above less from below",
            force[within],
            gap[within],
            missed,
            1e-12,
        ),
        smaller("what each unit is off its balance against that difference", off, np.abs(gap), size, 1e-12),
        smaller("how far the equilibrium is, against (1 + L)/m times the residual", apart, reach, size, 1e-9),
    )


THEOREMS = (
    Theorem(
        "predictive-coding",
        r"Nudged by $\beta C$, the errors $\epsilon_k = h_k - f_k(h_{k-1})$ of a predictive coding network satisfy "
        r"$\epsilon_k/\beta \to -\delta_k$, the deltas of back-propagation, and "
        r"$\partial_\theta E/\beta \to dC/d\theta$; at $\beta = 0$ it is a forward pass with $E = 0$.",
        ("a small nudge", "no unit at the kink of its rectifier"),
        "Whittington and Bogacz 2017; Kerjan, Hoier and Scellier 2026, arXiv 2606.03584",
        "predictive coding networks",
        predictive_coding,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        "predictive-coding-kernel",
        r"From the free state, $K$ sweeps over even and then odd layers give the gradient to first order in $\beta$ "
        r"for $K \geq L$, the number of layers, and for no smaller $K$.",
        ("even and odd layers in turn", "at least two layers"),
        "Kerjan, Hoier and Scellier 2026, arXiv 2606.03584",
        "predictive coding networks",
        predictive_coding_kernel,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        "feed-forward-residual",
        r"After the pass $h_k = \rho(b_k + 2W_k h_{k-1})$ each unit is off its balance by at most "
        r"$|W_{k+1}'h_{k+1} - W_k h_{k-1}|$: where layers predict one another, one pass is the equilibrium.",
        ("an energy that is convex", "symmetric couplings"),
        "Bengio et al. 2016, arXiv 1606.01651; the bound is derived here",
        "deep Hopfield networks",
        feed_forward_residual,
        universal=False,
    ),
)
