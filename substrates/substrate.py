"""The contract of a substrate: what every physical system offers to every learning rule.

Three methods make a system: ``energy`` (or ``force``), ``initial_state`` and ``read``. The rest is derived from them
and may be overridden where physics offers better. Everything is written for one example; ``jax.vmap`` batches it.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates import arguments, explained
from substrates.arguments import check_count, check_key
from substrates.entrance import admit_words, check_batch, ready_inputs, ready_nudge, refuse_shape
from substrates.nudge import (
    Cost,
    Nudge,
    NudgeRefusedError,
    Pin,
    SquaredError,
    as_tree,
    batch_axes,
    check_finite,
    fit_target,
    takes_own_targets,
)
from substrates.parameters import (
    as_complex,
    by_path,
    cast,
    fixed,
    match_paths,
    parameter_dtype,
    reads_parameters,
    split_parameters,
)
from substrates.pictures import any_system, display
from substrates.room import make_room
from substrates.solvers.batching import relax_batch, relax_phases, same_batch
from substrates.solvers.discrete_time import DiscreteTime
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.implicit import equilibrium, response
from substrates.solvers.joint import Control, JointEquilibrium, relax_alternately
from substrates.solvers.meeting import meeting_forces, or_largest, products, row_sizes, shown
from substrates.solvers.sharing import COLUMNS, EXAMPLES, LARGE, by_devices, column_spec, divided, shared, whole
from substrates.solvers.solver import (
    FAILURES,
    Equilibrium,
    Solver,
    Status,
    at_rest,
    bounds_at,
    cast_like,
    left_by_bounds,
    left_over,
    with_known_energy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLUMNS",
    "EXAMPLES",
    "FAILURES",
    "LARGE",
    "Cost",
    "DiscreteTime",
    "Equilibrium",
    "Nudge",
    "NudgeRefusedError",
    "Pin",
    "Solver",
    "SquaredError",
    "Status",
    "Substrate",
    "as_tree",
    "at_rest",
    "batch_axes",
    "bounds_at",
    "by_devices",
    "by_path",
    "check_batch",
    "check_count",
    "check_finite",
    "check_key",
    "column_spec",
    "divided",
    "fit_target",
    "fixed",
    "make_room",
    "match_paths",
    "parameter_dtype",
    "reads_parameters",
    "ready_inputs",
    "relax_batch",
    "relax_phases",
    "response",
    "same_batch",
    "shared",
    "split_parameters",
    "takes_own_targets",
    "whole",
]

MOST_ROUNDS = 50
"""So often is it asked which bounds are pushed against while outputs are held."""


class Substrate(eqx.Module):
    """A physical system that settles, with trainable parameters as array fields.

    At equilibrium the state minimises (or makes stationary) the total energy F = E + beta C, where beta C is a nudge
    at the outputs; or, for a system without an energy, it is a root of the force.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, for the total energy and its nudge.
    """

    contrast_points: ClassVar[int] = 2
    """How `contrast` differentiates between two states: 1 where dE/dtheta is at most quadratic in the state (exact and
    cheapest), 2 otherwise (exact up to quartic), 0 for the plain difference, where states do not interpolate."""

    solver: ClassVar[Any] = DescendThenPolish()
    """The solver that `relax` uses unless it is given another."""

    holomorphic: ClassVar[bool] = True
    """Whether energy, force and reading continue to complex numbers, for nudges of a complex beta. States that are
    clipped, discrete or normalised do not."""

    why_not_holomorphic: ClassVar[str] = "they are clipped, discrete, normalised or mixed"
    """What a complex beta is told where `holomorphic` is False."""

    discrete: ClassVar[bool] = False
    """Whether states are discrete: no force moves them, and an equilibrium is what no flip improves."""

    pins: ClassVar[bool] = True
    """Whether outputs can be held at a `Pin`. Those of an ensemble, which are means, cannot."""

    distribution: ClassVar[bool] = False
    """Whether a state is the whole distribution over configurations at a temperature, whose `covariance` is known."""

    reversible: ClassVar[bool] = False
    """Whether a state is where a motion ends that runs back the way it came when momenta are reversed: `echo`."""

    training_precision: ClassVar[int] = 32
    """The bits of a number with which the command trains this system where nothing else is asked for."""

    forwards: ClassVar[bool] = False
    """Whether what is given goes on to another substrate, which looks at it: see `entrance.admit_words`."""

    linear_in_parameters: ClassVar[bool] = False
    """Whether the energy is linear in every trainable parameter, each with limits of its own. Parameters that settle
    with the state then reach their minimum at a given state in one step, which nobody needs to check."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        admit_words(cls)

    # what a plug-in writes

    def energy(self, state: PyTree, x: PyTree) -> Inexact[Array, ""]:
        """The energy E(state; x) of one example, a scalar."""
        raise NotImplementedError(
            f"{type(self).__name__} defines neither energy(state, x) nor force(state, x): define one of them; see "
            f"{explained.METHODS}"
        )

    @abc.abstractmethod
    def initial_state(self, x: PyTree) -> PyTree:
        """Where relaxation starts when no other start is given."""

    @abc.abstractmethod
    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        """What the output terminals show."""

    # what it gets

    def start(self, x: PyTree, key: PRNGKeyArray | None = None) -> PyTree:
        """Where a free phase starts, in the dtype of the parameters: the initial state, or one drawn from the key."""
        return jax.tree.map(lambda leaf: cast(leaf, parameter_dtype(self)), self.initial_state(x))

    def check_input(self, x: PyTree) -> None:
        """Raises ValueError for an input that means nothing to the system, before anything is compiled for it: here for
        other shapes than `x_shape`, and for a complex x while the parameters are real, whose imaginary part would be
        dropped.
        """
        if self.x_shape is not None and jnp.shape(x) not in arguments.flat_too(self.x_shape):
            refuse_shape("x", self.x_shape, x)
        arguments.refuse_complex_input(x, parameter_dtype(self))

    @property
    def input_size(self) -> int | None:
        """How many numbers x holds, where it is a vector and the class knows; None otherwise."""
        return None

    @property
    def x_shape(self) -> tuple[int, ...] | None:
        """The shape of x, where it is one array and the class knows; x may also come flat."""
        return None if self.input_size is None else (self.input_size,)

    @property
    def conservative(self) -> bool:
        """Whether the system has an energy: whether its class defines `energy`."""
        return type(self).energy is not Substrate.energy

    def derives(self, *names: str) -> bool:
        """Whether the class leaves all these methods to the contract."""
        return all(getattr(type(self), name) is getattr(Substrate, name) for name in names)

    def reciprocal(self, x: PyTree) -> bool:
        """Whether the derivative of `stationarity` in the state is known to be symmetric at every state: that of an
        energy, without bounds.
        """
        return self.conservative and self.derives("stationarity") and self.bounds(x) is None

    def total_energy(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Inexact[Array, ""]:
        """The total energy F = E + beta C; a pin adds nothing."""
        energy = self.energy(state, x)
        return energy + nudge.energy(self.read(state, x)) if isinstance(nudge, Nudge) else energy

    def force(self, state: PyTree, x: PyTree) -> PyTree:
        """The force -dE/dstate, a tree like the state. A system without an energy defines it itself."""
        holomorphic = any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(state))
        return jax.tree.map(jnp.negative, jax.grad(self.energy, holomorphic=holomorphic)(state, x))

    def total_force(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree:
        """The force of the system and of the nudge together: force(state, x) + (dread/dstate)' pull."""
        force = self.force(state, x)
        if not isinstance(nudge, Nudge):
            return force
        output, transpose = jax.vjp(lambda s: self.read(s, x), state)
        return jax.tree.map(jnp.add, force, transpose(nudge.pull(output))[0])

    def bounds(self, x: PyTree) -> tuple[PyTree, PyTree] | None:
        """None, or (lower, upper), each a tree like the state; infinities where a side is open."""
        return None

    def bound_stiffness(self, state: PyTree, x: PyTree) -> PyTree:
        """What makes a force of the distance from a bound: sum_j |df_i/ds_j| of every variable, a tree like the state.

        Only systems with `bounds` are asked. Override it where a stiffness is known; it is not differentiated.
        """
        flat, unravel = ravel_pytree(jax.lax.stop_gradient(state))
        force = lambda s: ravel_pytree(self.force(unravel(s), x))[0]
        ones = jnp.ones(flat.shape, jnp.finfo(flat.dtype).dtype)
        sizes = row_sizes(products(force, flat)[1], ones, flat.dtype)
        return unravel(jax.lax.stop_gradient(or_largest(sizes)))

    def stationarity(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree:
        """The map whose root is the equilibrium: THE definition of equilibrium, as a tree, in the units of a force.

        Without bounds it is minus the total force; with bounds the natural map -clip(force, k (lower - s),
        k (upper - s)) of the Karush-Kuhn-Tucker conditions, with k the `bound_stiffness`; with a pin the pair (force
        along the pinned manifold, read - target).
        """
        force, bounds = self.total_force(state, x, nudge), bounds_at(self, x, state)
        if isinstance(nudge, Pin):
            flat, unravel = ravel_pytree(state)
            output, directions = shown(lambda s: self.read(unravel(s), x), flat)
            sides = None if bounds is None else (ravel_pytree(bounds[0])[0], ravel_pytree(bounds[1])[0])
            force = unravel(_along_pin(ravel_pytree(force)[0], directions, flat, sides))
        if bounds is not None:
            force = jax.tree.map(left_by_bounds, state, force, self.bound_stiffness(state, x), *bounds)
        balance = jax.tree.map(jnp.negative, force)
        return (balance, output - nudge.target) if isinstance(nudge, Pin) else balance

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """How far from equilibrium, without a unit: the largest part that `stationarity` leaves over at a variable of
        the forces that meet there, `force_scale`; of a pinned output as a part of its target and of what it shows.
        """
        return left_over(self.stationarity(state, x, nudge), self.meeting(state, x, nudge))

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        """The sum of the sizes of the forces that meet at each variable, a tree like the state: what a balance at that
        variable is small against, in the units of a force.

        By default what the derivatives of the force tell of them (`meeting_forces`), with variables as large as they
        are or were at the initial state. Override it where single forces are known.
        """
        flat, unravel = ravel_pytree(state)
        first = ravel_pytree(cast_like(self.initial_state(x), state))[0]
        force = lambda s: ravel_pytree(self.total_force(unravel(s), x))[0]
        sizes = meeting_forces(*products(force, flat), flat, jnp.maximum(jnp.abs(flat), jnp.abs(first)))
        real = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.finfo(leaf.dtype).dtype), state)
        return ravel_pytree(real)[1](sizes)

    def meeting(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree:
        """`force_scale`, with what a nudge adds to the forces that meet at the variables that outputs show; under a pin
        a pair, like `stationarity`: beside it what outputs add up from their variables, and their targets. Variables
        count there at least as far as the forces that meet at them would move them, for one may be held at 0.
        """
        scale = self.force_scale(state, x)
        if nudge is None:
            return scale
        if isinstance(nudge, Pin):
            flat, unravel = ravel_pytree(state)
            along = products(lambda s: self.read(unravel(s), x), flat)[1]
            forces, stiffness = (ravel_pytree(tree)[0] for tree in (scale, self.bound_stiffness(state, x)))
            sizes = jnp.maximum(jnp.abs(flat), forces / jnp.where(stiffness > 0, stiffness, jnp.inf))
            return scale, row_sizes(along, sizes, flat.dtype) + jnp.abs(nudge.target)
        output, transpose = jax.vjp(lambda s: self.read(s, x), state)
        brought = transpose(nudge.size(output))[0]
        return jax.tree.map(lambda s, b: s + jnp.abs(b), scale, brought)

    def relax(
        self,
        x: PyTree,
        nudge: Nudge | Pin | None = None,
        start: PyTree | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        """Settles from `start` and stays on its branch.

        Args:
            x: the clamped input of one example; complex only where the parameters are.
            nudge: a `Nudge`, a `Pin`, or None for the free phase.
            start: a state, cast to the dtype of the parameters; by default `self.start(x, key)`.
            key: randomness, for systems that use it.
            solver: replaces the solver of the class.

        Raises ValueError for what `check_input` refuses; a system whose inputs are complex by nature takes their real
        and imaginary parts, or has complex parameters.

        Never raises for lack of convergence: `Equilibrium.status` says how it ended, `not_finite` wherever x holds NaN
        or infinity and, outside of compiled code, where an energy overflows. A complex beta continues the whole system,
        its input and its target analytically.

        State and energy can be differentiated in the parameters, the input and the nudge, forward and reverse, by the
        implicit function theorem (`solvers.implicit.equilibrium`): a substrate is a layer of any JAX program.

        Raises ValueError for a target that does not have the shape of the outputs (see `Nudge`), and for what the
        system or the solver cannot do: a complex beta where nothing is `holomorphic`, a pin where none can be held.
        """
        make_room(self, x, nudge, start)
        chosen: Solver = self.solver if solver is None else solver
        system: Substrate = self
        if not isinstance(chosen, Solver):
            raise TypeError(f"solver: wanted a Solver or None, got {type(chosen).__name__}")
        nudge = None if nudge is None else ready_nudge(self, x, nudge)
        _refuse_nudge(self, chosen, nudge)
        if isinstance(nudge, Nudge) and jnp.iscomplexobj(nudge.beta):
            system, x, nudge, start = as_complex(self), as_complex(x), as_complex(nudge), as_complex(start)
        start = _start(system, x, key) if start is None else start
        nudge, start = jax.tree.map(jnp.asarray, (nudge, start))
        return with_known_energy(_settle(chosen, system, x, nudge, start, key))

    # what averages over a batch, or is shared by it

    def relax_jointly(
        self,
        control: Control,
        knobs: Self,
        xs: PyTree,
        nudges: Nudge | Pin | None = None,
        starts: PyTree | None = None,
        keys: PRNGKeyArray | None = None,
        *,
        max_rounds: int = 1000,
    ) -> JointEquilibrium:
        """Settles with parameters that are physical too: the minimum over theta and every s_b of

            U(u, theta)/epsilon + mean_b [E(theta, s_b; x_b) + beta_b C_b].

        Args:
            control: U/epsilon.
            knobs: u, a tree like the substrate (None where there is nothing to train).
            xs, starts, keys: with a leading batch axis; all copies share the parameters.
            nudges: a `Nudge` or a `Pin` whose targets are batched, or None.
            max_rounds: how often the states may settle before it is given up.

        Starts from the parameters at hand. Override it where states and parameters can be settled in one go.

        Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
        """
        starts = jax.vmap(self.initial_state)(xs) if starts is None else starts
        return relax_alternately(self, control, knobs, xs, nudges, starts, keys, max_rounds)

    def measure(self, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> Self:
        """dF/dtheta, the observable conjugate to each parameter, averaged over a batch.

        Args:
            states, xs: trees with a leading batch axis.
            nudges: a `Nudge` whose targets are batched, or None.

        Returns a tree like the substrate, None where there is nothing to train. A system without an energy has no
        such observable and raises TypeError; its `contrast` exists.
        """
        if not self.conservative:
            raise TypeError(
                f"measure: {type(self).__name__} has a force but no energy, so dF/dtheta does not exist; "
                "use contrast, which does"
            )
        return self._mean_gradient(states, xs, nudges, any(map(jnp.iscomplexobj, jax.tree.leaves(states))))

    def measure_from(self, free: PyTree, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> Self:
        """What is measured of states that nudges moved from free ones, averaged over a batch: `measure`, or without an
        energy the work that the force does at the free state,

            -(dforce/dtheta at free)' (state - free),

        linear in the state, so that its derivative in beta is that of equilibrium propagation (and with an energy, to
        first order, the same as that of dE/dtheta). Costs whose outputs have parameters of their own add theirs.

        Args:
            free: the free states, a tree with a leading batch axis.
            states, xs, nudges: as of `measure`; states may be at complex nudges.

        Source: Laborieux and Zenke 2024, arXiv 2309.02214.
        """
        if self.conservative:
            return self.measure(states, xs, nudges)
        real = lambda tree: jax.tree.map(jnp.real, tree)
        moved = jax.tree.map(jnp.subtract, states, jax.tree.map(lambda f, s: f.astype(s.dtype), free, states))
        work = lambda part: split_parameters(self._directional_gradient(free, part(moved), real(xs)))[0]
        total = work(real)
        if any(map(jnp.iscomplexobj, jax.tree.leaves(moved))):
            imaginary = work(lambda tree: jax.tree.map(jnp.imag, tree))
            total = jax.tree.map(jax.lax.complex, total, imaginary)
        if not isinstance(nudges, Nudge):
            return total
        holomorphic = any(map(jnp.iscomplexobj, jax.tree.leaves(states)))
        xs = as_complex(xs) if holomorphic else xs
        return jax.tree.map(jnp.add, total, self._nudge_gradient(states, xs, nudges, holomorphic))

    def contrast(
        self,
        plus: PyTree,
        minus: PyTree,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """measure(plus) - measure(minus), averaged over a batch, without the cancellation of a plain difference.

        With m = (plus + minus)/2 and d = plus - minus it is the derivative of dE/dtheta along d, at m (one point), or
        averaged over the two Gauss points m +- d/(2 sqrt 3); for a system without an energy it is the gradient in
        theta of -<force(m), d>, which is the same number where there is one. Between states at complex nudges, which
        may lie far apart, it is the plain difference.
        """
        continued = self.conservative and any(map(jnp.iscomplexobj, jax.tree.leaves((plus, minus))))
        if self.contrast_points == 0 or continued:
            return jax.tree.map(
                jnp.subtract, self.measure(plus, xs, nudges_plus), self.measure(minus, xs, nudges_minus)
            )
        middle = jax.tree.map(lambda p, m: (p + m) / 2, plus, minus)
        difference = jax.tree.map(jnp.subtract, plus, minus)
        offsets = {1: (0.0,), 2: (-0.5 / 3**0.5, 0.5 / 3**0.5)}[self.contrast_points]
        points = [jax.tree.map(lambda m, d, c=c: m + c * d, middle, difference) for c in offsets]
        terms = [self._directional_gradient(point, difference, xs) for point in points]
        total = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *terms)
        for sign, states, nudges in ((1.0, plus, nudges_plus), (-1.0, minus, nudges_minus)):
            if isinstance(nudges, Nudge):
                total = jax.tree.map(lambda t, g, s=sign: t + s * g, total, self._nudge_gradient(states, xs, nudges))
        return total

    def covariance(self, states: PyTree, xs: PyTree, nudges: Nudge) -> tuple[Float[Array, ""], Self]:
        """<beta C> and Cov(beta C, dE/dtheta) over the configurations of each state, both averaged over a batch.

        Only systems whose state is a `distribution` have them; others raise TypeError.

        Args:
            states, xs: trees with a leading batch axis.
            nudges: whose targets are batched; beta C of a configuration is that of what it shows.

        Returns a number, and a tree like the substrate, None where there is nothing to train.
        """
        raise TypeError(
            f"covariance: wanted a system whose state is a distribution, got {type(self).__name__}, whose state is one "
            "configuration or a sample; relax it several times, each time with another key"
        )

    def echo(self, states: PyTree, xs: PyTree, nudges: Nudge) -> tuple[Self, Equilibrium]:
        """The contrast of two echoes of each motion, nudged by beta and by -beta on their way back.

        Only `reversible` systems have them; others raise TypeError.

        Args:
            states, xs: trees with a leading batch axis; states are where motions ended.
            nudges: whose targets are batched, `about` what was shown.

        Returns dF/dtheta along the echo at beta less that along the one at -beta, averaged over a batch: a tree like
        the substrate, None where there is nothing to train. And where both came back, with the residual of the return.
        """
        raise TypeError(
            f"echo: wanted a system that runs back the way it came when momenta are reversed, got "
            f"{type(self).__name__}, which does not; train it by EquilibriumPropagation"
        )

    def draw(self, state: PyTree = None, x: PyTree = None, ax: Axes | None = None) -> Axes:
        """Draws a state; here its numbers, one after the other, and without a state the parameters. Override it where
        physics has a picture.

        Args:
            state: a state; None with an x settles the system.
            x: the input that belongs to the state.
            ax: where to draw, in space for a system that is `in_space`; None opens a new figure.
        """
        if state is None and x is not None:
            state = self.relax(x).state
        shown, prefix = (split_parameters(self)[0], "") if state is None else (state, "state")
        leaves = jax.tree_util.tree_leaves_with_path(shown)
        named = {(prefix + jax.tree_util.keystr(path)).lstrip("."): leaf for path, leaf in leaves}
        return any_system.numbers(named, ax)

    @property
    def in_space(self) -> bool:
        """Whether `draw` wants axes in three dimensions."""
        return False

    def _repr_html_(self) -> str:
        """A small picture and the parameters, for notebooks; nothing relaxes."""
        none = jnp.zeros(0, parameter_dtype(self))
        bare = (self.initial_state(none), none) if self.x_shape == (0,) else (None, None)
        rows = [(name, *display.in_short(leaf)) for name, leaf in by_path(split_parameters(self)[0]).items()]
        picture = display.picture(lambda ax: self.draw(*bare, ax), flat=not self.in_space)
        return display.beside(type(self).__name__, picture, [("parameter", "shape", "values"), *rows])

    def constrained(self) -> Self:
        """The nearest substrate whose parameters are physical (conductances at or above their floor, ...)."""
        return self

    def nearest_physical(self, compliance: Self) -> Self:
        """`constrained`, nearest by sum_k (theta_k - theta'_k)^2 / compliance_k: where soft parameters come to rest.

        The same wherever limits act on one parameter at a time; override it where they tie parameters to each other.
        """
        return self.constrained()

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """A system fit for a data set with `n_inputs` features and `n_outputs` outputs; `sizes` are hidden sizes."""
        raise NotImplementedError(
            f"{cls.__name__} does not say how to build itself for a data set: define "
            "for_task(n_inputs, n_outputs, *, sizes=None, key)"
        )

    def undecided(self) -> str:
        """A sentence, without its full stop, on what these parameters leave undecided, for the errors of whoever
        trained them; "" for nothing that is known. It is asked outside compiled code.
        """
        return ""

    def training_defaults(self) -> dict[str, Any]:
        """What the command trains this system with where nothing else is asked for: any of these.

        `beta`, `variant` and `cost` (a name) of the rule, or any other option of one by its name, `epochs`,
        `batch_size`, `optimiser` (a name), `learning_rate`, `decay` (of the learning rate, a factor per epoch). Rules
        with a strength of another name take it for `beta` too. A learning rate is one number, or a dict
        from the paths of parameters ("conductance", "conductance[0]") to numbers. `bench` is a dict of what rules on
        the bench are given instead: `epsilon`, `beta`, `variant`, `cost`, `epochs`, `batch_size` (copies of the plant).
        """
        return {}

    # how the derived parts are computed

    def _mean_gradient(self, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None, holomorphic: bool = False) -> Self:
        parameters, rest = split_parameters(self)

        def mean_energy(parameters):
            system = eqx.combine(parameters, rest)
            axes = (0, 0, batch_axes(nudges))
            return jnp.mean(jax.vmap(lambda s, x, n: system.total_energy(s, x, n), in_axes=axes)(states, xs, nudges))

        return jax.grad(mean_energy, holomorphic=holomorphic)(parameters)

    def _directional_gradient(self, states: PyTree, directions: PyTree, xs: PyTree) -> Self:
        parameters, rest = split_parameters(self)

        def mean_energy(parameters, states):
            return jnp.mean(jax.vmap(eqx.combine(parameters, rest).energy)(states, xs))

        def mean_work(parameters):
            forces = jax.vmap(lambda s, x: eqx.combine(parameters, rest).force(s, x))(states, xs)
            works = jax.tree.map(lambda f, d: -jnp.sum(f * d) / f.shape[0], forces, directions)
            return sum(jax.tree.leaves(works))

        if not self.conservative:
            return jax.grad(mean_work)(parameters)
        gradient = lambda s: jax.grad(mean_energy)(parameters, s)
        return jax.jvp(gradient, (states,), (directions,))[1]

    def _nudge_gradient(self, states: PyTree, xs: PyTree, nudges: Nudge, holomorphic: bool = False) -> Self:
        parameters, rest = split_parameters(as_complex(self) if holomorphic else self)

        def mean_nudge(parameters):
            system = eqx.combine(parameters, rest)
            energy = lambda s, x, n: n.energy(system.read(s, x))
            return jnp.mean(jax.vmap(energy, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges))

        return jax.grad(mean_nudge, holomorphic=holomorphic)(parameters)


admit_words(Substrate)


def _refuse_nudge(system: Substrate, solver: Solver, nudge: Nudge | Pin | None) -> None:
    unable = next((type(who).__name__ for who in (system, solver) if not who.pins), None)
    if isinstance(nudge, Pin) and unable:
        raise NudgeRefusedError(
            f"nudge: wanted a Nudge or None, got a Pin; {unable} nudges outputs and cannot hold them at a pin: train "
            f"by a rule that nudges, such as EquilibriumPropagation, or settle by another solver (that of "
            f"{type(system).__name__} is {type(system.solver).__name__}); see {explained.RULES}"
        )
    if isinstance(nudge, Nudge) and jnp.iscomplexobj(nudge.beta) and not system.holomorphic:
        raise NudgeRefusedError(
            f"beta: wanted a real number, got a complex one; states of {type(system).__name__} have no analytic "
            f"continuation: {system.why_not_holomorphic}; take a real beta; see {explained.RULES}"
        )


def _holding(
    force: Inexact[Array, " n"], directions: Inexact[Array, "outputs n"], felt: Any
) -> Inexact[Array, " outputs"]:
    """The forces at outputs that leave the least, in the 2-norm, of those on variables that are felt."""
    felt = felt.astype(force.dtype)
    return jnp.linalg.lstsq((felt[None] * directions).T, felt * force)[0]


def _along_pin(
    force: Inexact[Array, " n"],
    directions: Inexact[Array, "outputs n"],
    state: Inexact[Array, " n"],
    bounds: tuple[Array, Array] | None,
) -> Inexact[Array, " n"]:
    """What the forces that hold outputs leave of the others, in the 2-norm of what no bound takes up.

    Bounds may hold more variables than it takes, as in a corner, so that forces at the outputs are found as those with
    which all bounds are pushed against: they are mended by what the variables that are not still feel.
    """
    if bounds is None:
        return force - directions.T @ _holding(force, directions, np.ones(1, bool))
    # what the bounds take up stays the same under small changes
    push, along, place, lower, upper = jax.lax.stop_gradient((force, directions, state, *bounds))
    # a bound takes up what pushes against it, and only that
    felt = lambda found: ~(((place <= lower) & (found <= 0)) | ((place >= upper) & (found >= 0)))
    far = lambda found: jnp.sum(jnp.where(felt(found), found, 0) ** 2)
    fractions = 0.5 ** jnp.arange(12, dtype=force.dtype)[:, None]

    def again(carry):
        holding, before, _, round_ = carry
        found = push - along.T @ holding
        now = felt(found)
        tried = holding[None] + fractions * _holding(found, along, now)[None]
        best = jnp.argmin(jax.vmap(lambda holding: far(push - along.T @ holding))(tried))
        return tried[best], now, jnp.any(now != before) | (best > 0), round_ + 1

    first = jnp.zeros(directions.shape[0], force.dtype), jnp.zeros(force.shape, bool), jnp.asarray(True), 0
    changing = lambda carry: carry[2] & (carry[3] < MOST_ROUNDS)
    holding, now, *_ = jax.lax.while_loop(changing, again, first)
    found = force - directions.T @ holding
    return found - directions.T @ _holding(found, directions, now)


@eqx.filter_jit
def _start(system: Substrate, x: PyTree, key: PRNGKeyArray | None) -> PyTree:
    return system.start(x, key)


@eqx.filter_jit
def _settle(
    solver: Solver, system: Substrate, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
) -> Equilibrium:
    start = jax.tree.map(lambda leaf: cast(leaf, parameter_dtype(system)), start)
    found = equilibrium(solver, system, x, nudge, start, key)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(x) if eqx.is_inexact_array(leaf)]
    if not finite:
        return found
    # an infinite input may leave a finite state: behind a diode, or where no flip wins against it
    status = Status.where(jnp.all(jnp.stack(finite)), found.status, Status.not_finite)
    return dataclasses.replace(found, status=status)
