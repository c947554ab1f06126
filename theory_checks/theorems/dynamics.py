"""Theorems of motion: paths of stationary action, launches and their boundary term, and Hamiltonian echoes."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from learning.costs import SquaredError
from learning.echo import HamiltonianEcho
from learning.reference import ImplicitGradient
from substrates.classical.trajectory import (
    CoupledPendulums,
    InitialValueTrajectory,
    MechanicalLagrangian,
    Samples,
    Trajectory,
)
from substrates.classical.trajectory.action import step_action
from substrates.parameters import fixed, split_parameters
from substrates.substrate import Cost
from theory_checks.case import compiled, flat
from theory_checks.theorems.measured import (
    agreement,
    centred_gradient,
    gradient,
    of_examples,
    require,
    require_kind,
    settled,
    smaller,
)
from theory_checks.theorems.theorem import Finding, Theorem


def _pendulums() -> CoupledPendulums:
    return CoupledPendulums(
        weight=jnp.asarray([1.5, 1.1]),
        coupling=jnp.asarray([0.7]),
        drive=jnp.eye(2),
        edges=((0, 1),),
        mass=jnp.asarray([1.0, 0.8]),
        frequency=jnp.asarray(1.0),
    )


def _launch(friction: float = 0.0) -> InitialValueTrajectory:
    meter, start = Samples([0, 1], [5, 12]), ([0.2, -0.1], [0.0, 0.3])
    return Trajectory.launched(_pendulums(), *start, duration=2.0, steps=12, meter=meter, n_inputs=2, friction=friction)


_X, _Y = np.array([0.7, -0.4]), np.array([0.3, -0.2, 0.1, 0.4])


@of_examples
def lagrangian_boundary(
    net: Trajectory | InitialValueTrajectory | None = None,
    x: Any = None,
    y: Any = None,
    *,
    cost: Cost | None = None,
    beta: float = 1e-2,
) -> tuple[Finding, ...]:
    """Equilibrium propagation of whole paths, and the boundary term by which it fails for launches.

    Between fixed ends and in loops the centred contrast of dS/dtheta is the gradient. From a launch, q_0 and p_0 given
    and the end free, it misses

        dC/dtheta - d/dbeta dS/dtheta = dp/dbeta . dq/dtheta - dp/dtheta . dq/dbeta    at the end,

    the symplectic product of how the end answers to the nudge and to the parameters.

    Args:
        net: a path or a launch; by default one of each.
        x, y: the input and the target of one example.
        cost: of what is read; the squared error by default.
        beta: the largest nudge of a path; that of a launch is infinitesimal.

    Raises NotApplicableError for a launch with friction, which has no action.
    """
    cost = SquaredError() if cost is None else cost
    if net is None:
        meter = Samples([1], [2, 3])
        path = Trajectory.between(_pendulums(), [0.0, 0.2], [1.0, -0.3], duration=1.0, steps=5, meter=meter, n_inputs=2)
        return (
            *lagrangian_boundary(path, _X, _Y[:2], cost=cost, beta=beta),
            *lagrangian_boundary(_launch(), _X, _Y, cost=cost),
        )
    require_kind(net, (Trajectory, InitialValueTrajectory), "paths of stationary action")
    x, y = jnp.asarray(x), jnp.asarray(y)
    settled(net, x)
    if isinstance(net, Trajectory):
        exact = gradient(ImplicitGradient(cost), net, x, y)
        return centred_gradient(net, x, y, exact, beta, cost)
    require(float(net.friction) == 0, "A motion with friction has no action that it makes stationary.")
    exact, naive, boundary = _launched(net, x, y, cost)
    missing, wanted = flat(exact) - flat(naive), flat(boundary)
    size = float(np.linalg.norm(flat(exact)))
    return (
        agreement("what the contrast of two launches misses, over the gradient", missing / size, wanted / size, 1e-9),
    )


class _Nudged(MechanicalLagrangian):
    """A law whose potential is lowered by beta <slope, output> / h at the steps that are read: S + beta C.

    Leapfrog counts the potential of the first and the last node by half, and an output by the whole.
    """

    inner: MechanicalLagrangian
    beta: Float[Array, ""]
    net: InitialValueTrajectory = fixed()
    slope: Float[Array, "outputs"] = fixed()

    @property
    def mass(self) -> Float[Array, " n"]:  # type: ignore[override]
        return self.inner.mass

    def potential(self, position: Inexact[Array, " n"], time: Any, x: Any) -> Inexact[Array, ""]:
        step = jnp.round(time / self.net.step).astype(int)
        weight = jnp.where((step == 0) | (step == self.net.steps), 2.0, 1.0) / self.net.step
        return self.inner.potential(position, time, x) - self.beta * weight * (
            self.slope @ self.net.meter(position, step)
        )


@compiled
def _launched(net: InitialValueTrajectory, x: Array, y: Array, cost: Cost) -> tuple[Any, Any, Any]:
    """dC/dtheta through the motion, the contrast of dS/dtheta in the limit beta -> 0, and the boundary term."""
    parameters, rest = split_parameters(net.lagrangian)
    zero = jnp.zeros_like(net.duration)
    shown = net.relax(x).state[2]
    slope = jax.grad(cost)(shown, y)

    def launch(parameters: Any, beta: Array) -> InitialValueTrajectory:
        law = _Nudged(inner=eqx.combine(parameters, rest), beta=beta, net=net, slope=slope)  # type: ignore[call-arg]
        return eqx.tree_at(lambda n: n.lagrangian, net, law)

    def action_slope(beta: Array) -> Any:
        path = launch(parameters, beta).path(x)
        times = jnp.arange(net.steps).astype(beta.dtype) * net.step
        one = lambda law, a, b, t: step_action(law, a, b, t, net.step, x)
        total = lambda p: jnp.sum(
            jax.vmap(lambda a, b, t: one(eqx.combine(p, rest), a, b, t))(path[:-1], path[1:], times)
        )
        return jax.grad(total)(parameters)

    end = lambda parameters, beta: launch(parameters, beta).relax(x).state[:2]
    answer = jax.jvp(lambda beta: end(parameters, beta), (zero,), (jnp.ones_like(zero),))[1]
    boundary = jax.vjp(lambda p: end(p, zero), parameters)[1]((answer[1], -answer[0]))[0]
    naive = jax.jvp(action_slope, (zero,), (jnp.ones_like(zero),))[1]
    exact = jax.grad(lambda p: cost(launch(p, zero).relax(x).state[2], y))(parameters)
    return exact, naive, boundary


@of_examples
def hamiltonian_echo(
    net: InitialValueTrajectory | None = None,
    x: Any = None,
    y: Any = None,
    *,
    cost: Cost | None = None,
    beta: float = 1e-2,
) -> tuple[Finding, ...]:
    """That a motion whose momenta are reversed runs back the way it came, and that the contrast of two nudged echoes is
    automatic differentiation through leapfrog.

    Args:
        net: a launch; two pendulums by default.
        x, y: the input and target of one example.
        cost: of what is read; the squared error by default.
        beta: the largest nudge.

    Raises NotApplicableError for a motion with friction.
    """
    cost = SquaredError() if cost is None else cost
    if net is None:
        net, x, y = _launch(), _X, _Y
    require_kind(net, InitialValueTrajectory, "launches")
    require(float(net.friction) == 0, "A motion with friction does not run back the way it came.")
    x, y = jnp.asarray(x), jnp.asarray(y)
    settled(net, x)
    return (
        smaller("how far from the launch an echo ends, over how far it went", net.retrace(x), 0.0, 1.0, 1e-10),
        *centred_gradient(net, x, y, _through_time(net, x, y, cost), beta, cost, HamiltonianEcho, strict=False),
    )


@compiled
def _through_time(net: InitialValueTrajectory, x: Array, y: Array, cost: Cost) -> Any:
    parameters, rest = split_parameters(net)
    return jax.grad(lambda p: cost(eqx.combine(p, rest).relax(x).state[2], y))(parameters)


THEOREMS = (
    Theorem(
        "lagrangian-boundary",
        r"For a path that makes $S + \beta C$ stationary, $dC/d\theta = \frac{d}{d\beta}\partial_\theta S$, if both "
        r"phases share boundary conditions that leave no boundary term $[p\,\delta q]$: fixed ends, or loops. "
        r"From a launch the contrast misses $\partial_\beta p\,\partial_\theta q - \partial_\theta p\,"
        r"\partial_\beta q$ at its free end.",
        ("a path of stationary action that is not degenerate", "no friction"),
        "Scellier 2021, arXiv 2103.09985; Massar 2025, arXiv 2505.07363; the boundary term is derived here",
        "paths between fixed ends, loops and launches",
        lagrangian_boundary,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        "hamiltonian-echo",
        r"Run to its end and back with its momenta reversed, a motion without friction retraces its way. Nudged "
        r"by $\pm\beta$ on the way back, $[\partial_\theta S(+) - \partial_\theta S(-)]/2\beta "
        r"= dC/d\theta + O(\beta^2)$.",
        ("a law that time reversal leaves alone", "no friction"),
        "Pourcel and Ernoult 2025, arXiv 2506.05259; Lopez-Pastor and Marquardt 2023, arXiv 2103.04992",
        "launches",
        hamiltonian_echo,
        universal=False,
        rules=("hamiltonian-echo",),
    ),
)
