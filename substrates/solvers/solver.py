"""What every solver returns and obeys: equilibria, their status, and the one tolerance."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Protocol, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, PyTree

from substrates.arguments import check_count
from substrates.nudge import Nudge, Pin
from substrates.pictures import any_system, display


class Status(eqx.Enumeration):
    """How a relaxation ended; every entry is a sentence."""

    converged = "The residual is below the tolerance."
    truncated = "Stopped after the sweeps that were asked for, without a test of convergence."
    out_of_steps = (
        "The residual was still above the tolerance when the steps ran out or none led further: "
        "another start may be nearer (of a path, its `guess`). At a temperature: the samples had not mixed."
    )
    not_finite = "The input, the state, its energy or the residual is infinite or NaN."
    unstable = (
        "No minimum: a nudge pushes the outputs harder than the system holds them, "
        "or the flow of a system without an energy leaves this state, or circles about it, as its linear part tells."
    )
    zero_mode = (
        "No single minimum: some motion costs no energy to second order, so nothing decides where it settles. "
        "The system's `undecided()` may know more."
    )
    infeasible = (
        "No solution: in `bounds`, lower bounds are above the upper ones, or no state within them shows what outputs "
        "are held at; or in a circuit, sources force a current through ideal elements without limit."
    )
    ill_conditioned = (
        "Rounding alone moves this state by more than the tolerance: "
        "64 bits decide it, or parts of more equal strength."
    )
    too_coarse = "The time step is too long for the fastest motion: give the path more steps, w h < 2."
    irreversible = (
        "The echoes do not return to where the motion set out: friction, chaos that enlarges rounding, "
        "or a nudge too strong."
    )


FAILURES = (
    "out_of_steps",
    "ill_conditioned",
    "zero_mode",
    "infeasible",
    "irreversible",
    "too_coarse",
    "unstable",
    "not_finite",
)
"""The statuses that no strict rule learns from, the worst last."""


def at_rest(status: Status) -> Bool[Array, "..."]:
    """Whether a relaxation came to rest: converged, or truncated on request."""
    return (status == Status.converged) | (status == Status.truncated)


def with_known_energy(found: Equilibrium) -> Equilibrium:
    """The same, but `not_finite` where it ended at an energy that no number holds and the status tells of the state
    there, not of what drove it there.

    What is traced stays as it is: steps of training need no energy, and to look at it would cost them as much as a
    sweep.
    """
    energy = found.energy
    if energy is None or isinstance(energy, Tracer) or not energy.is_fully_addressable or np.all(np.isfinite(energy)):
        return found
    ended = at_rest(found.status) | (found.status == Status.out_of_steps)
    ended |= (found.status == Status.zero_mode) | (found.status == Status.ill_conditioned)
    lost = ended & ~jnp.isfinite(energy)
    mark = lambda lost, status: Status.where(lost, Status.not_finite, status)
    mark = jax.vmap(mark) if energy.ndim else mark
    return dataclasses.replace(found, status=mark(lost, found.status))


class Equilibrium(eqx.Module):
    """Where a relaxation ended.

    Attributes:
        state: a tree; the array or tuple that a physicist would name.
        energy: the total energy F at the state; None for a system without an energy.
        residual: the distance from equilibrium that the substrate defines: what the forces leave over at a variable,
            as a part of the forces that meet there, the largest of all variables. It has no unit.
        steps: how many steps the solver took.
        status: a `Status`.
    """

    state: PyTree
    energy: Float[Array, "..."] | None
    residual: Float[Array, "..."]
    steps: Int[Array, "..."]
    status: Status

    @property
    def converged(self) -> Bool[Array, "..."]:
        """Whether the residual is below the tolerance."""
        return self.status == Status.converged

    def _repr_html_(self) -> str:
        """A small picture of the state and what was found, for notebooks."""
        leaves = jax.tree_util.tree_leaves_with_path(self.state)
        named = {("state" + jax.tree_util.keystr(path)): np.asarray(leaf) for path, leaf in leaves}
        rows = [(name, *display.in_short(array)) for name, array in named.items()]
        batch = jnp.ndim(self.residual) > 0
        energy = [] if self.energy is None else [("energy", *display.in_short(self.energy))]
        found = [*energy, ("residual", *display.in_short(self.residual)), ("steps", *display.in_short(self.steps))]
        ended = f"{int(jnp.sum(self.converged))} of {self.residual.size} converged" if batch else Status[self.status]
        picture = display.picture(lambda ax: any_system.numbers(named, ax))
        return display.beside(f"Equilibrium: {ended}", picture, [("", "shape", "values"), *rows, *found])

    def counts(self) -> dict[str, int]:
        """How many relaxations of a batch ended in which way, {name of the status: number} of those that occur."""
        names = ("converged", "truncated", *FAILURES)
        ended = {name: int(jnp.sum(self.status == getattr(Status, name))) for name in names}
        return {name: number for name, number in ended.items() if number}

    @property
    def usable(self) -> Bool[Array, "..."]:
        """Whether a rule may learn from it: converged, or truncated on request."""
        return at_rest(self.status)

    def __str__(self) -> str:
        sizes = ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(self.state))
        if jnp.ndim(self.residual):
            ended = ", ".join(f"{number} {name}" for name, number in self.counts().items())
            return (
                f"{self.residual.size} equilibria with states {sizes}: {ended}, largest residual "
                f"{float(jnp.max(self.residual)):.2e} of the forces that meet, at most "
                f"{int(jnp.max(self.steps))} steps"
            )
        energy = "" if self.energy is None else f", energy {float(jnp.real(self.energy)):.6g}"
        sentence = Status[self.status]
        residual = f"residual {float(self.residual):.2e} of the forces that meet"
        return f"state {sizes}{energy}, {residual} after {int(self.steps)} steps. {sentence}"


class System(Protocol):
    """What solvers see of a substrate: the part of its contract that settles one example."""

    @property
    def conservative(self) -> bool: ...
    def derives(self, *names: str) -> bool: ...
    def reciprocal(self, x: PyTree) -> bool: ...
    def total_energy(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Inexact[Array, ""]: ...
    def force(self, state: PyTree, x: PyTree) -> PyTree: ...
    def total_force(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree: ...
    def bounds(self, x: PyTree) -> tuple[PyTree, PyTree] | None: ...
    def bound_stiffness(self, state: PyTree, x: PyTree) -> PyTree: ...
    def stationarity(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree: ...
    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]: ...
    def force_scale(self, state: PyTree, x: PyTree) -> PyTree: ...
    def meeting(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree: ...
    def initial_state(self, x: PyTree) -> PyTree: ...
    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]: ...


class Solver(eqx.Module):
    """A way to settle: called with a substrate, an input, a nudge, a start and a key, returns an `Equilibrium`.

    A solver that counts its steps or sweeps has a field `max_steps` or `max_sweeps` for the most of them, and may have
    one `sweeps` for a number to do without a test, or None. Raises ValueError where these are no whole numbers.
    """

    pins: ClassVar[bool] = True
    """Whether it can hold outputs at a `Pin`."""

    def __check_init__(self):
        for name in {field.name for field in dataclasses.fields(self)} & {"sweeps", "max_sweeps", "max_steps"}:
            value, optional = getattr(self, name), name == "sweeps"
            if not (optional and value is None):
                _check_count(name, value, ", or None to settle" if optional else "")

    @abc.abstractmethod
    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium: ...

    def limited(self, count: Int[Array, ""] | int) -> Limited:
        """The same solver, stopped after `count` steps or sweeps, a run-time number: the status is then `truncated`.

        Of a solver that works in rounds (quantum states under nudges that feel them) each round is stopped so.

        Raises TypeError for a solver that does not settle step by step, ValueError for what is no such number.
        """
        if self._most is None:
            raise TypeError(
                f"limited: wanted a solver that counts steps, got {type(self).__name__}, which does not; settle by "
                "another solver, or train by a rule that waits until the system rests, such as EquilibriumPropagation"
            )
        _check_count("count", count)
        return Limited(self, jnp.asarray(count, jnp.int32))

    def stopped_after(self, count: Int[Array, ""]) -> Self:
        """The same solver with `count` as the most steps of the whole relaxation."""
        return dataclasses.replace(self, **{str(self._most): count})

    def in_bfloat16(self) -> Self:
        """The same solver, which multiplies changes of the state by couplings in bfloat16 and does these products in
        full again as often as it takes: what it finds is judged as ever, and settles as finely.

        Raises TypeError for a solver that has no such products.
        """
        if "mixed" not in {field.name for field in dataclasses.fields(self)}:
            raise TypeError(
                f"in_bfloat16: wanted a solver that multiplies couplings with changes of the state and does so in full "
                f"again, got {type(self).__name__}, which would lose what 8 bits do not hold; settle in 32 bits"
            )
        return dataclasses.replace(self, mixed=True)

    @property
    def _most(self) -> str | None:
        names = {field.name for field in dataclasses.fields(self)}
        return next((name for name in ("max_steps", "max_sweeps") if name in names), None)


def _check_count(name: str, value: Any, advice: str = "") -> None:
    """`check_count` of what is known when a solver is made."""
    if not isinstance(value, jax.Array | np.ndarray):
        check_count(name, value, 0, advice)


class Limited(Solver):
    """A solver that stops after so many steps or sweeps, which is what was asked for: see `Solver.limited`.

    Attributes:
        inner: the solver.
        count: of steps or sweeps; a solver that sweeps before it looks does at least one.
    """

    inner: Solver
    count: Int[Array, ""]

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        found = self.inner.stopped_after(self.count)(substrate, x, nudge, start, key)
        stopped = (found.status == Status.out_of_steps) & (found.steps >= self.count)
        return dataclasses.replace(found, status=Status.where(stopped, Status.truncated, found.status))


def max_norm(tree: PyTree) -> Float[Array, ""]:
    """The largest magnitude of any number in a tree; 0 for an empty one."""
    sizes = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(sizes)) if sizes else jnp.zeros(())


def reach(stiffness: Array, bound: Array, state: Array) -> Array:
    """stiffness (bound - state), infinite where the bound is, and differentiable in the stiffness there too."""
    finite = jnp.isfinite(bound)
    return jnp.where(finite, stiffness * (jnp.where(finite, bound, 0.0) - state), bound)


def left_by_bounds(state: Array, force: Array, stiffness: Array, lower: Array, upper: Array) -> Array:
    """The force that is left over where a bound does not take it up, and of a variable beyond or short of a bound that
    it is pushed against the force that would bring it there.
    """
    return clipped_by_bounds(state, force, stiffness, lower, upper)[0]


def clipped_by_bounds(
    state: Array, force: Array, stiffness: Array, lower: Array, upper: Array
) -> tuple[Array, Bool[Array, "..."]]:
    """`left_by_bounds`, and whether a bound takes the force up. What is left over may differ from a force that no bound
    takes up: a compiler that computes the force twice may round it in two ways.
    """
    least, most = reach(stiffness, lower, state), reach(stiffness, upper, state)
    return jnp.clip(force, least, most), (force < least) | (force > most)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with the dtypes of another of the same structure."""
    return jax.tree.map(lambda leaf, other: jnp.asarray(leaf).astype(other.dtype), tree, like)


def bounds_at(system: System, x: PyTree, state: PyTree) -> tuple[PyTree, PyTree] | None:
    """None, or the bounds of a system as two trees like a state; raises ValueError for bounds that are not."""
    bounds = system.bounds(x)
    if bounds is None:
        return None
    like = lambda tree: ([jnp.shape(leaf) for leaf in jax.tree.leaves(tree)], jax.tree.structure(tree))
    if not isinstance(bounds, tuple | list) or len(bounds) != 2 or any(like(side) != like(state) for side in bounds):
        shapes = lambda tree: " and ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree)) or "none"
        raise ValueError(
            f"bounds: wanted None or a pair (lower, upper), each of shape {shapes(state)}, like the state, from "
            f"{type(system).__name__}.bounds, got {type(bounds).__name__} of {shapes(bounds)}; give each variable "
            "both, infinities where a side is open"
        )
    lower, upper = bounds
    return cast_like(lower, state), cast_like(upper, state)


def everywhere(value: Float[Array, ""], like: PyTree) -> PyTree:
    """A tree like another with one real number everywhere."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(value, jnp.shape(leaf)).astype(jnp.finfo(leaf.dtype).dtype), like)


def part(balance: Array, scale: Array) -> Float[Array, "..."]:
    """What is left over of the forces that meet at each variable, as a part of them, at most 1; 0 of none is 0."""
    size = jnp.abs(balance)
    meeting = jnp.maximum(scale, size)
    return size / jnp.where(meeting > 0, meeting, 1.0)


def left_over(balance: PyTree, scale: PyTree) -> Float[Array, ""]:
    """The largest `part` |balance_i| / scale_i of all variables."""
    return max_norm(jax.tree.map(part, balance, scale))


def default_tolerance(dtype: Any) -> float:
    """The part of the forces that meet at a variable which a free phase may leave over: 4 eps^(3/4) for a dtype."""
    return 4 * float(jnp.finfo(dtype).eps) ** 0.75


ROUNDINGS = 16
"""So many rounding errors of the forces that meet at a variable are never asked for."""


def tolerance(
    substrate: System,
    state: PyTree,
    x: PyTree,
    nudge: Nudge | Pin | None,
    absolute: float | None = None,
    relative: float | None = None,
    scale: PyTree | None = None,
    brought: PyTree | None = None,
) -> Float[Array, ""]:
    """The residual up to which a relaxation counts as converged: a part of the forces that meet at a variable, no unit.

    Multiply every energy by s, and all forces by s with it: the minimum stays, and no test of convergence may notice.
    Put a weak part beside a strong one: it must not be judged by the strong one's forces. So the balance at every
    variable is measured against `Substrate.force_scale`, the sum of the sizes of the forces that meet there
    (conductance times voltage at a node, stiffness times length at a joint, the couplings of a spin), of which rounding
    leaves some eps. The residual is the largest of these parts, and the tolerance is

        free phase:    4 eps^(3/4);
        nudged phase:  the same part of what the nudge adds, max_i |pull_i| / (the forces that meet at i), since the
                       error of equilibrium propagation is the residual over beta; a nudge of strength 0, a number of
                       run time, is a free phase;

    and never below 16 eps, what rounding makes of sums of forces. A residual bounds forces, not states: the weakest
    motion may be off by the residual times the condition. Solvers that factorise therefore also look at the state that
    one more step would lead to, and at what rounding does to it, and report `Status.ill_conditioned`.

    Args:
        substrate, state, x, nudge: what is judged.
        absolute: newtons, amperes, ...: a force that may be left over at any variable, on top; None or 0 for none.
        relative: in place of 4 eps^(3/4).
        scale: the forces that meet at each variable, where they are at hand.
        brought: the forces that the nudge brings to each variable, where they are at hand.
    """
    dtype = jnp.result_type(*jax.tree.leaves(state))
    scale = substrate.force_scale(state, x) if scale is None and (absolute or isinstance(nudge, Nudge)) else scale
    if isinstance(nudge, Nudge) and brought is None:
        output, transpose = jax.vjp(lambda s: substrate.read(s, x), state)
        brought = transpose(nudge.pull(output))[0]
    return allowed(dtype, nudge, brought, scale, absolute, relative)


def allowed(
    dtype: Any,
    nudge: Nudge | Pin | None,
    brought: PyTree,
    scale: PyTree,
    absolute: float | None = None,
    relative: float | None = None,
) -> Float[Array, ""]:
    """The `tolerance` of a state where the forces that a nudge brought, and those that meet, are at hand."""
    relative = default_tolerance(dtype) if relative is None else relative
    limit = jnp.asarray(relative, jnp.finfo(dtype).dtype)
    if isinstance(nudge, Nudge):
        nudged = jnp.maximum(relative * left_over(brought, scale), ROUNDINGS * float(jnp.finfo(dtype).eps))
        limit = jax.lax.select(jnp.equal(nudge.beta, 0), limit, nudged.astype(limit.dtype))
    if absolute:
        limit += absolute / max_norm(scale)
    return limit


def judge(
    substrate: System,
    state: PyTree,
    x: PyTree,
    nudge: Nudge | Pin | None,
    steps: Int[Array, ""] | int,
    limit: Float[Array, ""],
) -> Equilibrium:
    """The equilibrium at a state, with its residual and energy, judged against a `tolerance`."""
    residual = substrate.residual(state, x, nudge)
    energy = substrate.total_energy(state, x, nudge) if substrate.conservative else None
    return judged(state, energy, residual, steps, limit)


def judged(
    state: PyTree,
    energy: Inexact[Array, ""] | None,
    residual: Float[Array, ""],
    steps: Int[Array, ""] | int,
    limit: Float[Array, ""],
) -> Equilibrium:
    """The equilibrium at a state of a known residual and energy, judged against a `tolerance`."""
    finite = jnp.isfinite(residual)
    for leaf in jax.tree.leaves(state):
        finite &= jnp.all(jnp.isfinite(leaf))
    status = Status.where(
        finite, Status.where(residual <= limit, Status.converged, Status.out_of_steps), Status.not_finite
    )
    return Equilibrium(state, energy, residual, jnp.asarray(steps, dtype=jnp.int32), status)
