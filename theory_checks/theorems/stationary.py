"""Theorems of equilibrium propagation beyond minima: saddles, driven motions, locked phases, matched forces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from learning.contrastive import EquilibriumPropagation
from learning.costs import SquaredError
from learning.reference import ImplicitGradient
from substrates.classical.activator_inhibitor import ActivatorInhibitor
from substrates.classical.driven import DrivenNetwork
from substrates.classical.hopfield import SmoothHopfieldNetwork
from substrates.classical.oscillator import OscillatorNetwork
from substrates.force_probe import ForceProbe
from substrates.parameters import split_parameters
from substrates.skew_gradient import SkewGradient
from substrates.substrate import Cost, Nudge, Substrate
from theory_checks.case import compiled, flat, relative
from theory_checks.theorems.measured import (
    agreement,
    centred_gradient,
    estimated,
    gradient,
    of_examples,
    power_law,
    require,
    require_kind,
    settled,
    smaller,
)
from theory_checks.theorems.theorem import Finding, NotApplicableError, Theorem

_SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]


@of_examples
def skew_gradient(
    net: SkewGradient | None = None, x: Any = None, y: Any = None, *, cost: Cost | None = None, beta: float = 1e-2
) -> tuple[Finding, ...]:
    """Equilibrium propagation at a stable saddle: of a system that goes down an energy in some variables, up in others.

    Args:
        net: activators and inhibitors on four nodes by default.
        x, y: the input and target of one example.
        cost: the squared error by default.
        beta: the largest nudge.

    Raises NotApplicableError where the flow does not come to rest.
    """
    cost = SquaredError() if cost is None else cost
    if net is None:
        net = ActivatorInhibitor.from_edges(
            _SQUARE,
            inputs=[0, 1],
            outputs=[2, 3],
            activator_diffusion=[0.2, 0.4, 0.1, 0.3, 0.5],
            inhibitor_diffusion=[0.5, 0.2, 0.7, 0.4, 0.3],
            gain=[0.1, -0.2, 0.3, 0.2],
            bias=[0.5, -0.8, 0.3, 0.2],
        )
        x, y = np.array([0.6, -0.4]), np.array([0.2, -0.1])
    require_kind(net, SkewGradient, "skew-gradient systems")
    x, y = jnp.asarray(x), jnp.asarray(y)
    state = settled(net, x).state
    slope, curvature = _bent(net, state, x)
    signs = flat(net.signature(state))
    rates = np.linalg.eigvals(-signs[:, None] * curvature).real
    exact = gradient(ImplicitGradient(cost), net, x, y)
    return (
        agreement(
            "grad Phi at rest, over the forces that meet", slope / flat(net.force_scale(state, x)), 0 * slope, 1e-9
        ),
        smaller("the fastest growth of -Q H", np.max(rates), 0.0, float(np.max(np.abs(rates))), 0.0),
        *centred_gradient(net, x, y, exact, beta, cost),
    )


@compiled
def _bent(net: Substrate, state: Any, x: Array) -> tuple[Array, Array]:
    """The slope and the curvature of the energy."""
    vector, unravel = ravel_pytree(state)
    energy = lambda s: net.energy(unravel(s), x)
    return jax.grad(energy)(vector), jax.hessian(energy)(vector)


@of_examples
def driven(
    net: DrivenNetwork | None = None, x: Any = None, y: Any = None, *, betas: Sequence[float] = (0.1, 10.0)
) -> tuple[Finding, ...]:
    """That the centred contrast of a driven network is the adjoint gradient at any strength of a constant pull.

    The observables are squares without conjugates, Re (X_i - X_j)^2/2 of a spring and so on; the powers, with
    conjugates, are wrong ones.

    Args:
        net: reads amplitudes (`reading="quadratures"`); four nodes at two frequencies by default.
        x, y: the input and target of one example.
        betas: nudges, large ones among them.

    Raises NotApplicableError where mean squares are read, whose nudges are not linear, and at an undamped resonance.
    """
    if net is None:
        draw = np.random.default_rng(5)
        net = DrivenNetwork.from_edges(
            _SQUARE,
            inputs=[0, 1],
            outputs=[2, 3],
            frequencies=[0.6, 1.7],
            stiffness=draw.uniform(0.2, 2, 5),
            damping=draw.uniform(0.05, 0.5, 5),
            inertance=draw.uniform(0.1, 0.6, 5),
            onsite_stiffness=draw.uniform(0.1, 1, 4),
            onsite_damping=draw.uniform(0.05, 0.5, 4),
            mass=draw.uniform(0.5, 2, 4),
            bias_force=draw.normal(size=(2, 2, 4)),
            reading="quadratures",
        )
        x, y = draw.normal(size=net.x_shape), draw.normal(size=8)
    require_kind(net, DrivenNetwork, "driven linear networks")
    require(not net.reads_power, "Mean squares are read: a nudge of them is not linear in the amplitudes.")
    x, y = jnp.asarray(x), jnp.asarray(y)
    exact = _adjoint(net, np.asarray(settled(net, x).state), np.asarray(net.read(settled(net, x).state, x) - y))
    names = [name for name in exact if getattr(net, name) is not None]
    wanted = [exact[name] for name in names]
    findings = []
    for beta in betas:
        rule = EquilibriumPropagation(beta, linearised=True)
        found = gradient(rule, net, x, y)
        compared = f"the centred contrast at beta = {beta} against the adjoint gradient"
        findings.append(agreement(compared, [getattr(found, name) for name in names], wanted, 1e-9))
    return tuple(findings)


def _adjoint(net: DrivenNetwork, state: np.ndarray, error: np.ndarray) -> dict[str, np.ndarray]:
    """-Re w' dZ/dtheta X with Z'w = conj(error) at the outputs: Z put together element by element, complex."""
    omega = np.asarray(net.frequencies)[:, None]
    motion, pairs = state[:, 0] + 1j * state[:, 1], np.asarray(net.graph.edges)
    parts = error.reshape(len(omega), 2, -1)
    number = lambda name: 0.0 if getattr(net, name) is None else np.asarray(getattr(net, name))
    own = number("onsite_stiffness") + 1j * omega * number("onsite_damping") - omega**2 * number("mass")
    between = number("stiffness") + 1j * omega * number("damping") - omega**2 * number("inertance")
    answers = []
    for at_nodes, at_edges, (real, imaginary) in zip(own, between, parts, strict=True):
        matrix, pull = np.diag(at_nodes), np.zeros(net.n, complex)
        for (i, j), value in zip(pairs, at_edges, strict=True):
            matrix[[i, j], [i, j]] += value
            matrix[[i, j], [j, i]] -= value
        np.add.at(pull, list(net.outputs), real - 1j * imaginary)
        answers.append(np.linalg.solve(matrix.T, pull))
    answer: Any = np.array(answers)
    apart = lambda values: values[:, pairs[:, 0]] - values[:, pairs[:, 1]]
    total = lambda factor, product: -np.sum(factor * product, axis=0).real
    spring, site, ones = apart(answer) * apart(motion), answer * motion, np.ones_like(omega)
    return {
        "stiffness": total(ones, spring),
        "damping": total(1j * omega, spring),
        "inertance": total(-(omega**2), spring),
        "onsite_stiffness": total(ones, site),
        "onsite_damping": total(1j * omega, site),
        "mass": total(-(omega**2), site),
        "bias_force": np.stack([answer.real, -answer.imag], axis=1),
    }


@of_examples
def natural_frequencies(
    net: OscillatorNetwork | None = None, x: Any = None, y: Any = None, *, cost: Cost | None = None, beta: float = 1e-2
) -> tuple[Finding, ...]:
    """That nudged phases are the gradient in the natural frequencies: dL/domega = -dphi/dbeta.

    Args:
        net: oscillators with natural frequencies, locked to a reference, an input or fields; five by default.
        x, y: the input and target of one example.
        cost: the squared error by default.
        beta: the largest nudge.

    Raises NotApplicableError for oscillators without natural frequencies, and where they do not lock.
    """
    cost = SquaredError() if cost is None else cost
    if net is None:
        net = OscillatorNetwork.from_edges(
            [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (1, 3)],
            coupling=[1.0, 0.8, 1.3, 0.9, 0.7, 0.5],
            frequency=[0.0, 0.3, -0.2, 0.1, -0.2],
            references={0: 0.0},
            outputs=[2, 4],
            readout="sine",
        )
        x, y = np.zeros(0), np.array([0.4, -0.3])
    require_kind(net, OscillatorNetwork, "networks of oscillators on graphs")
    require(net.frequency is not None, "The oscillators have no natural frequencies.")
    x, y = jnp.asarray(x), jnp.asarray(y)
    free = settled(net, x).state

    def phases(strength: float) -> np.ndarray:
        nudge = Nudge(cost, y, jnp.asarray(strength))
        return np.asarray(net.phases(settled(net, x, nudge, free).state, x))

    def loss(frequency: np.ndarray) -> float:
        moved = eqx.tree_at(lambda n: n.frequency, net, jnp.asarray(frequency))
        return float(cost(net.read(settled(moved, x, None, free).state, x), y))

    at, step = np.asarray(net.frequency), 1e-3
    along = lambda e, h: (loss(at + h * e) - loss(at - h * e)) / (2 * h)
    slopes = [(4 * along(e, step / 2) - along(e, step)) / 3 for e in np.eye(net.n)]
    answer = lambda b: -(phases(b) - phases(-b)) / (2 * b)
    betas = beta, beta / 2, beta / 4
    found = [answer(b) for b in betas]
    errors = [relative(one, np.array(slopes)) for one in found]
    return (
        agreement("-dphi/dbeta, extrapolated, against differences of L", (4 * found[1] - found[0]) / 3, slopes, 1e-6),
        power_law("the order of its bias in beta", betas, errors, 2),
    )


@of_examples
def force_matching(
    inner: Substrate | None = None,
    x: Any = None,
    *,
    points: Any = None,
    wanted: Any = None,
    stiffnesses: Sequence[float] | None = None,
    softening: float = 1e-3,
) -> tuple[Finding, ...]:
    """That springs of stiffness k show the force of a system at a point, and a contrast the gradient of its error, up
    to O(1/k).

    Args:
        inner: a system with an energy over states without bounds; a smooth Hopfield network by default.
        x: its own input, of one example.
        points: where forces are wanted, shape (batch, variables); by default two near the initial state.
        wanted: forces, of the same shape; by default random ones.
        stiffnesses: k, ascending; by default from a hundred to ten thousand times what the system's own is.
        softening: beta k, by which part a nudge softens the springs: well below 1.

    Raises NotApplicableError for a system that has no force to read.
    """
    if inner is None:
        inner, x = SmoothHopfieldNetwork.layered((2, 3, 2), key=jax.random.key(1)), np.array([0.5, -0.3])
    require_kind(inner, Substrate, "systems with an energy")
    x = jnp.asarray(x)
    try:
        ForceProbe(inner, x, 1.0)
    except (TypeError, ValueError) as error:
        raise NotApplicableError(f"It speaks of forces over states without bounds: {error}") from error
    draw, start = np.random.default_rng(7), flat(inner.initial_state(x))
    points = start + draw.normal(size=(2, start.size)) if points is None else np.asarray(points)
    wanted = draw.normal(size=points.shape) if wanted is None else np.asarray(wanted)
    forces, own, exact = _forces(inner, x, points, wanted)
    ks = np.max(own) * np.array([1e2, 1e3, 1e4]) if stiffnesses is None else np.asarray(stiffnesses)
    shown, errors = [], []
    for k in ks:
        estimate = estimated(
            EquilibriumPropagation(softening / float(k)),
            ForceProbe(inner, x, float(k)),
            jnp.asarray(points),
            jnp.asarray(wanted),
        )
        shown.append(relative(estimate.output, forces))
        errors.append(relative(flat(estimate.gradient.inner), flat(exact)))
    return (
        power_law("the order in 1/k of the error of the forces that are shown", 1 / ks, shown, 1),
        power_law("the order in 1/k of the error of the gradient", 1 / ks, errors, 1),
        smaller("the error of the gradient at the largest k", errors[-1], 0.0, 1.0, 0.05),
    )


@compiled
def _forces(inner: Substrate, clamped: Array, points: Array, wanted: Array) -> tuple[Array, Array, Any]:
    """The forces at the points, how stiff the system is there, and the gradient of half the forces' mean squared
    error."""
    parameters, rest = split_parameters(inner)
    unravel = ravel_pytree(inner.initial_state(clamped))[1]

    def exerted(parameters: Any) -> Array:
        slope = jax.grad(lambda s: eqx.combine(parameters, rest).energy(unravel(s), clamped))
        return -jax.vmap(slope)(points)

    error = lambda p: jnp.mean(jnp.sum((exerted(p) - wanted) ** 2, axis=1)) / 2
    bent = jax.vmap(jax.hessian(lambda s: inner.energy(unravel(s), clamped)))(points)
    return exerted(parameters), jnp.linalg.norm(bent, 2, axis=(1, 2)), jax.grad(error)(parameters)


_SCELLIER = "Scellier and Bengio 2017, arXiv 1602.05179, for stationary points"

THEOREMS = (
    Theorem(
        "skew-gradient",
        r"A stable rest of $\dot s = -Q\nabla(\Phi + \beta C)$, $Q = \mathrm{diag}(\pm 1)$, is a stationary point "
        r"of $\Phi$, as a rule a saddle, and the centred contrast of $\partial_\theta\Phi$ is "
        r"$dL/d\theta + O(\beta^2)$ there.",
        ("a rest that is not degenerate", "the nudge inside the energy"),
        "2026, arXiv 2605.21568; " + _SCELLIER,
        "skew-gradient systems, such as activators and inhibitors",
        skew_gradient,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        "driven",
        r"For $Z(\theta, \omega) X = f$ with $Z$ symmetric, nudged by the drive $-\beta\bar e$, "
        r"$dL/d\theta = \mathrm{Re}\,\frac{d}{d\beta}\,\frac{1}{2} X'(\partial_\theta Z)X$, transposes without "
        r"conjugates. The centred contrast is exact at any $\beta$.",
        ("reciprocal elements", "linear ones", "amplitudes are read", "no undamped resonance"),
        "derived for this project; cf. Berneman and Hexner 2025, arXiv 2506.20402",
        "driven linear networks",
        driven,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        "natural-frequencies",
        r"For phases locked at a minimum of $E - \sum_i\omega_i\varphi_i$, $dL/d\omega_i = -d\varphi_i/d\beta$.",
        ("phases that lock, one of them pinned",),
        "2026, arXiv 2604.10272; " + _SCELLIER,
        "networks of phase oscillators",
        natural_frequencies,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        "force-matching",
        r"Held at $x_0$ by springs $k$, a system shows its force as $k(s - x_0) = f(x_0) + O(1/k)$; nudged by "
        r"$|k(s - x_0) - v|^2/2$, its contrast is the gradient of $|f(x_0) - v|^2/2$ up to $O(1/k)$.",
        ("an energy over states without bounds", "beta well below 1/k"),
        "2026, arXiv 2604.08150",
        "systems with an energy over states without bounds",
        force_matching,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
)
