"""Theorems of agnostic equilibrium propagation: physics alone makes the step, down a bound, in a metric of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray, PyTree

from learning.agnostic import AgnosticEP
from learning.homeostat import Homeostat, SelfControl
from learning.rule import check_positive
from substrates.laboratory.plant import Plant
from substrates.solvers.joint import Control, PotentialControl, SpringControl
from substrates.substrate import Cost, Nudge, Substrate, batch_axes, split_parameters
from theory_checks.case import compiled, flat, measure, on_host, relative
from theory_checks.theorems.measured import agreement, smaller
from theory_checks.theorems.propagation import surrogate
from theory_checks.theorems.suitable import halved, order_of, refuse, suitable, with_room
from theory_checks.theorems.theorem import Finding, NotApplicableError, Theorem

VARIANTS = ("optimistic", "pessimistic", "centered")
MINIMUM = "states at a minimum that is smooth in parameters and nudge"
HELD = "every parameter has a knob that can hold it, and the first phase holds it at a minimum"


class SinhWell(eqx.Module):
    """U = 1/2 (sinh theta - u)' Q (sinh theta - u) with Q = 1 + 0.2 everywhere: d2U/dtheta2 = D Q D at u = sinh theta,
    with D = diag(cosh theta)."""

    def __call__(self, u: Any, theta: Any) -> Any:
        off = jnp.sinh(theta) - u
        return 0.5 * jnp.sum(off**2) + 0.1 * jnp.sum(off) ** 2


def agnostic_step(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    epsilon: float | None = None,
    homeostat: Homeostat | None = None,
) -> tuple[Finding, ...]:
    """A step moves the parameters by -epsilon (b2 - b1) grad L_(b1,b2) + O(epsilon^2), from knobs at
    theta + epsilon dE/dtheta; and so down the gradient of the cost, up to O(beta), centred O(beta^2).

    Args:
        substrate, x, y, cost, key: as of `check_substrate`; all examples are copies on the bench, which share the
            parameters.
        beta: b2 - b1; by default a strength that suits the system.
        epsilon: the largest compliance of the knobs; by default one that suits the system.
        homeostat: what holds the parameters, by default `SelfControl`.

    Raises NotApplicableError without an energy, for discrete states, distributions, equilibria that do not move
    smoothly, inputs that are no vectors, and parameters that a physical limit stops.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """
    bench = _Bench(substrate, x, y, cost, key, beta, epsilon, homeostat)
    case, theta = bench.case, bench.theta
    findings = []
    for variant in VARIANTS:
        found = bench.extrapolated(variant, case.beta, SpringControl)
        compared = f"{variant} step over -epsilon (b2 - b1), epsilon -> 0, and the gradient of its surrogate"
        findings.append(agreement(compared, found, bench.gradient(variant, case.beta), case.resolution))
    epsilons = halved(bench.epsilon, count=6)
    wanted = bench.gradient("optimistic", case.beta)
    steps = [relative(bench.step("optimistic", case.beta, SpringControl(e))[0], wanted) for e in epsilons]
    findings.append(order_of(case, "optimistic step, error in epsilon", epsilons, steps, 1, case.resolution))
    for variant, order in (("optimistic", 1), ("centered", 2)):
        betas = halved(case.beta / (4 if order == 1 else 2), count=5)
        errors = [relative(bench.extrapolated(variant, b, SpringControl), flat(case.reference)) for b in betas]
        compared = f"{variant} step, error in beta from the gradient of the cost"
        findings.append(order_of(case, compared, betas, errors, order, case.resolution))
    knobs = bench.step("pessimistic", case.beta, SpringControl(bench.epsilon))[1]
    nudge = case.nudge(-case.beta)
    force = flat(measure(case.substrate, case.settle(nudge).state, case.xs, nudge))
    moved = (knobs - theta) / bench.epsilon
    findings.append(agreement("knobs less theta, over epsilon, and dE/dtheta", moved, force, case.resolution))
    return tuple(findings)


def agnostic_lyapunov(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    epsilon: float | None = None,
    homeostat: Homeostat | None = None,
    shares: Sequence[float] = (1.0, 0.1),
) -> tuple[Finding, ...]:
    """No step raises L_(b1,b2), however large epsilon and b2 - b1 are, as long as the first phase holds the parameters
    at a minimum.

    Args:
        substrate, x, y, cost, key, beta, homeostat: as of `agnostic_step`.
        epsilon: by default such that a parameter yields as far as it is large, or half of what can still hold it.
        shares: the parts of epsilon that are tried.

    Raises NotApplicableError as `agnostic_step`, and for an epsilon with which the parameters are held at no minimum.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """
    bench = _Bench(substrate, x, y, cost, key, beta, epsilon, homeostat)
    case = bench.case
    findings = []
    for variant in VARIANTS:
        first, second = AgnosticEP(case.beta, variant).nudges
        softest = bench.softest(first)
        largest = 0.5 / -softest if softest < 0 else np.inf
        wanted = min(100 * bench.epsilon, largest) if epsilon is None else epsilon
        if 1 / wanted + softest <= 0:
            refuse(substrate, f"with epsilon = {wanted:.2g} the {variant} first phase holds parameters at no minimum")
        before = surrogate(case, first, second)
        size = abs(before) + 1e-3
        after = []
        for share in shares:
            moved = bench.step(variant, case.beta, SpringControl(share * wanted))[2]
            after.append(surrogate(case, first, second, moved))
        compared = f"{variant}: the surrogate after a step and before, epsilon = {wanted:.2g}"
        slack = 1e3 * case.epsilon**0.75 / min(1.0, case.beta)
        findings.append(smaller(compared, np.asarray(after), np.full(len(shares), before), size, slack))
    return tuple(findings)


def agnostic_metric(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    epsilon: float | None = None,
    homeostat: Homeostat | None = None,
    potential: Callable[[Any, Any], Any] | None = None,
) -> tuple[Finding, ...]:
    """Under a control energy U(u, theta)/epsilon the step is Riemannian: -epsilon (b2 - b1) M^-1 grad L_(b1,b2), with
    M = d2U/dtheta2 at the knobs that hold theta.

    Args:
        substrate, x, y, cost, key, beta, epsilon, homeostat: as of `agnostic_step`.
        potential: U, a callable of two vectors; by default `SinhWell()`.

    Raises NotApplicableError as `agnostic_step`.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """
    well = SinhWell() if potential is None else potential
    bench = _Bench(substrate, x, y, cost, key, beta, epsilon, homeostat)
    case, theta = bench.case, jnp.asarray(bench.theta)
    control = lambda epsilon: PotentialControl(well, epsilon)
    at_rest = control(bench.epsilon).holding(theta, jnp.zeros_like(theta))
    metric = np.asarray(jax.hessian(well, argnums=1)(at_rest, theta))
    findings = []
    for variant in VARIANTS:
        found = bench.extrapolated(variant, case.beta, control, at_rest)
        wanted = np.linalg.solve(metric, bench.gradient(variant, case.beta))
        compared = f"{variant} step over -epsilon (b2 - b1), epsilon -> 0, and M^-1 times the gradient"
        findings.append(agreement(compared, found, wanted, case.resolution))
    return tuple(findings)


class _Bench:
    """A case whose parameters are physical, and the steps that agnostic equilibrium propagation makes of it.

    Attributes:
        theta: the parameters, one vector.
        epsilon: how far a parameter yields to a unit of force; by default a hundredth of what makes the forces of the
            free state move the parameters by their own size.
    """

    def __init__(
        self,
        substrate: Substrate,
        x: PyTree,
        y: PyTree,
        cost: Cost | None,
        key: PRNGKeyArray | None,
        beta: float | None,
        epsilon: float | None,
        homeostat: Homeostat | None,
    ):
        if epsilon is not None:
            check_positive("epsilon", epsilon)
        self.case = suitable(substrate, x, y, cost, key, beta)
        with_room(self.case)
        if not eqx.is_array_like(self.case.xs) or np.ndim(self.case.xs) != 2:
            refuse(substrate, "its inputs are no vectors, which terminals on the bench could be clamped at")
        self.homeostat = SelfControl() if homeostat is None else homeostat
        self.theta = flat(on_host(split_parameters(substrate)[0]))
        force = np.linalg.norm(flat(measure(substrate, self.case.free.state, self.case.xs)))
        natural = 0.01 * float(np.linalg.norm(self.theta) + 0.1) / float(force + 0.1)
        self.epsilon = natural if epsilon is None else epsilon

    def step(
        self, variant: Any, beta: float, control: Control, knobs: Any = None
    ) -> tuple[np.ndarray, np.ndarray, Substrate]:
        """The step over -epsilon (b2 - b1), the knobs of its first phase, and the system after it."""
        case = self.case
        sized = case.substrate.input_size is not None
        plant = Plant(
            case.substrate,
            control=control,
            cost=case.cost,
            copies=case.size,
            inputs=None if sized else case.xs.shape[1],
            key=case.key,
        )
        if knobs is not None:
            plant.set_knobs(np.asarray(knobs))
        rule = AgnosticEP(beta, variant, self.homeostat, precision=1e-6, cost=case.cost, strict=False)
        rule.step(plant, np.asarray(case.xs), np.asarray(case.ys))
        reading = plant.read()
        parameters, rest = split_parameters(case.substrate)
        moved = ravel_pytree(parameters)[1](jnp.asarray(reading.parameters, case.dtype))
        made = (reading.parameters - self.theta) / (-float(control.epsilon) * beta)  # type: ignore[attr-defined]
        return made, reading.knobs, eqx.combine(moved, rest)

    def extrapolated(
        self, variant: Any, beta: float, control: Callable[[float], Control], knobs: Any = None
    ) -> np.ndarray:
        """The step over -epsilon (b2 - b1), from three small epsilons to none."""
        small = self.epsilon / 20
        whole, half, quarter = (self.step(variant, beta, control(small / 2**k), knobs)[0] for k in range(3))
        return (8 * quarter - 6 * half + whole) / 3

    def gradient(self, variant: str, beta: float) -> np.ndarray:
        """That of L_(b1,b2), which equilibrium propagation measures at any beta."""
        if variant == "centered":
            return flat(self.case.propagate(beta / 2))
        return flat(self.case.propagate_one_sided(beta if variant == "optimistic" else -beta))

    def softest(self, beta: float) -> float:
        """The least curvature in the parameters of the total energy at equilibrium."""
        nudge = self.case.nudge(beta)
        states = self.case.settle(nudge).state
        try:
            return float(_least_curvature(self.case.substrate, states, self.case.xs, nudge))
        except np.linalg.LinAlgError as error:
            raise NotApplicableError(f"{type(self.case.substrate).__name__}: its states are at no minimum") from error


@compiled
def _least_curvature(substrate: Substrate, states: PyTree, xs: PyTree, nudge: Nudge) -> Any:
    parameters, rest = split_parameters(substrate)
    theta, with_theta = ravel_pytree(parameters)
    together, with_states = ravel_pytree(states)

    def mean_energy(theta, together):
        one = lambda s, x, n: eqx.combine(with_theta(theta), rest).total_energy(s, x, n)
        return jnp.mean(jax.vmap(one, in_axes=(0, 0, batch_axes(nudge)))(with_states(together), xs, nudge))

    (of_theta, mixed), (_, of_states) = jax.hessian(mean_energy, argnums=(0, 1))(theta, together)
    yielding = jnp.linalg.lstsq(of_states, mixed.T)[0]
    return jnp.linalg.eigvalsh(of_theta - mixed @ yielding)[0]


THEOREMS = (
    Theorem(
        name="agnostic-step",
        statement=r"$\theta_t = \theta_{t-1} - \epsilon (\beta_2 - \beta_1) \nabla L_{\beta_1, \beta_2} + "
        r"O(\epsilon^2 \beta)$, from knobs at $u = \theta + \epsilon\, \partial E/\partial\theta$: a step of gradient "
        r"descent, up to $O(\beta)$ one-sided and $O(\beta^2)$ centred.",
        assumptions=(MINIMUM, HELD, "springs from the knobs to the parameters, of small compliance"),
        source="Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021",
        applies_to="systems with an energy whose parameters settle too",
        check=agnostic_step,
        universal=True,
        rules=("agnostic",),
    ),
    Theorem(
        name="agnostic-lyapunov",
        statement=r"$L_{\beta_1, \beta_2}(\theta_t) \leq L_{\beta_1, \beta_2}(\theta_{t-1})$ at any finite $\epsilon$ "
        r"and $\beta_1 < \beta_2$.",
        assumptions=("states at a minimum", HELD),
        source="Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021",
        applies_to="systems with an energy whose parameters settle too",
        check=agnostic_lyapunov,
        universal=True,
        rules=("agnostic",),
    ),
    Theorem(
        name="agnostic-metric",
        statement=r"Under a control energy $U(u, \theta)/\epsilon$ the step is $-\epsilon (\beta_2 - \beta_1) M^{-1} "
        r"\nabla L$ to leading order, with the metric $M = \partial^2 U / \partial\theta^2$ where $u$ holds $\theta$.",
        assumptions=(MINIMUM, HELD, r"a control energy whose well is stable, and small $\epsilon$"),
        source="Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021",
        applies_to="systems with an energy whose parameters settle too",
        check=agnostic_metric,
        universal=True,
        rules=("agnostic",),
    ),
)
