"""A simulated substrate on the bench: its parameters are physical, and only the five verbs touch it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PRNGKeyArray, PyTree

from substrates.laboratory.system import (
    Place,
    Reading,
    Spec,
    Terminals,
    checked_hold,
    checked_input,
    checked_knobs,
    checked_nudge,
    inside,
    refuse_nudge_of_held,
)
from substrates.nudge import Cost, Nudge, NudgeRefusedError, Pin, SquaredError, as_tree
from substrates.solvers.joint import Control, SpringControl, joint_status, rest_threshold
from substrates.solvers.sharing import whole
from substrates.solvers.solver import Status
from substrates.substrate import (
    Substrate,
    match_paths,
    parameter_dtype,
    reads_parameters,
    relax_batch,
    split_parameters,
)

Array = np.ndarray

_FAR = 1e15
"""So far no physical limit lies; its square is a number in single precision."""


class Apparatus(eqx.Module):
    """What holds a substrate on the bench, and what it then does as pure functions; see `Simulation`.

    Attributes:
        rest: the substrate without its parameters.
        control: how knobs hold parameters.
        cost: what a nudge adds to the energy.
        limits: (lower, upper) of the parameters, shape (parameters,) or scalars; None where there are none.
        key: randomness of systems that use it, or None.
        max_rounds: how often the states may settle before a joint relaxation is given up.
        dtype: of inputs, targets and betas.
    """

    rest: PyTree
    control: Control
    cost: Cost
    limits: tuple[jax.Array, jax.Array] | None
    key: PRNGKeyArray | None
    max_rounds: int
    dtype: Any = eqx.field(static=True)

    def system(self, parameters: PyTree) -> Any:
        """The substrate with these parameters."""
        return eqx.combine(parameters, self.rest)

    def nudge(self, targets: Any, beta: Any) -> Nudge | None:
        return None if beta is None else Nudge(self.cost, targets, beta)

    def keys(self, example: Any, copies: int) -> PRNGKeyArray | None:
        return None if self.key is None else jax.random.split(jax.random.fold_in(self.key, example), copies)

    def inside(self, parameters: PyTree, margin: float) -> PyTree:
        if self.limits is None:
            return parameters
        flat, unravel = ravel_pytree(parameters)
        return unravel(inside(flat, *self.limits, margin))

    def read(self, parameters: PyTree, states: PyTree, xs: Any) -> jax.Array:
        return jax.vmap(self.system(parameters).read)(states, xs)

    @eqx.filter_jit
    def hold(
        self, parameters: PyTree, xs: Any, nudge: Nudge | Pin | None, starts: PyTree, keys: PRNGKeyArray | None
    ) -> tuple[PyTree, PyTree, Status]:
        system = self.system(parameters)
        found = relax_batch(system, xs, nudge, starts, keys)
        force = split_parameters(system.measure(found.state, xs, nudge))[0]
        still = jnp.zeros((), self.dtype)
        return whole((self.control.holding(parameters, force), found.state, joint_status(found, still, still)))

    @eqx.filter_jit
    def settle(
        self,
        parameters: PyTree,
        knobs: PyTree,
        xs: Any,
        nudge: Nudge | Pin | None,
        starts: PyTree,
        keys: PRNGKeyArray | None,
    ) -> tuple[PyTree, PyTree, Status]:
        relax = self.system(parameters).relax_jointly
        found = relax(self.control, knobs, xs, nudge, starts, keys, max_rounds=self.max_rounds)
        return whole((split_parameters(found.system)[0], found.states.state, found.status))


class Plant:
    """A substrate whose parameters settle together with its state, held softly by one knob each.

    At rest (theta, s) minimises U(u, theta)/epsilon + E(theta, s, x) + beta C(s, y), by default with
    U = |u - theta|^2/2: every parameter sits where the spring of its knob balances the force on it,
    theta = u - epsilon dE/dtheta, or at its physical limit. Several copies share the parameters; their E + beta C is
    the mean.

    A new input is met from the substrate's initial state, everything else from where the system is.

    Attributes:
        status: how the last settling ended.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """

    def __init__(
        self,
        substrate: Substrate,
        epsilon: Any = None,
        *,
        cost: Cost | None = None,
        control: Control | None = None,
        copies: int | None = None,
        inputs: int | None = None,
        knob_range: tuple[Any, Any] = (-np.inf, np.inf),
        max_rounds: int = 10_000,
        key: PRNGKeyArray | None = None,
    ):
        """Puts a substrate on the bench, its knobs where its parameters are.

        Args:
            substrate: whose trainable parameters become physical.
            epsilon: how far a parameter yields to a unit of force: one number, or a dict from the paths of parameters
                ("conductance", "coupling[0]") to numbers; the longest path that leads to a parameter counts.
            cost: what a nudge of the outputs adds, beta cost(output, target); by default `SquaredError`, a spring.
            control: replaces the springs of the knobs, instead of `epsilon`.
            copies: how many copies settle side by side; None for one.
            inputs: how many inputs it has, where the substrate does not tell.
            knob_range: (lower, upper) of the knobs, numbers or one for each.
            max_rounds: how often the states may settle before a joint relaxation is given up.
            key: randomness of systems that use it; every example has a key of its own for all its phases.

        Raises:
            ValueError: for an epsilon that is not positive, a path that leads to no parameter, a substrate without an
                energy or without parameters.
        """
        if not isinstance(substrate, Substrate):
            raise ValueError(f"substrate: wanted a Substrate, got {type(substrate).__name__}")
        if not substrate.conservative:
            raise ValueError(
                f"substrate: wanted a system with an energy, which moves its parameters, got one with a force only, "
                f"{type(substrate).__name__}"
            )
        parameters, self._rest = split_parameters(substrate)
        flat, self._unravel = ravel_pytree(parameters)
        self._parameter_dtype = flat.dtype
        if not flat.size:
            raise ValueError("substrate: wanted at least one trainable parameter, got none")
        if (epsilon is None) == (control is None):
            raise ValueError("epsilon, control: wanted one of the two")
        control = SpringControl(_compliance(epsilon, parameters)) if control is None else control
        self._dtype, self._copies, self._examples = parameter_dtype(substrate), copies, 0
        self._parameters = self._knobs = _Vector(parameters)
        self._substrate_type = type(substrate)
        self.spec = self._specify(substrate, flat, inputs, knob_range)
        limits, number = self.spec.parameters, lambda value: jnp.asarray(value, flat.dtype)
        self._apparatus = Apparatus(
            self._rest,
            jax.tree.map(number, control),
            as_tree(cost or SquaredError()),
            (number(limits.lower), number(limits.upper)) if limits.limited else None,
            key,
            max_rounds,
            self._dtype,
        )
        self._x = checked_input(self.spec, None).reshape(-1, self.spec.inputs.size).astype(self._dtype)
        self._target: Any = None
        self._beta = 0.0
        self._held: Any = None
        self._states: PyTree = None
        self.status = Status.converged

    # the five verbs

    def set_knobs(self, u: Float[Array, "knobs"]) -> None:
        values = checked_knobs(self.spec, u)
        self._knobs = self._vector(values)

    def clamp(self, x: Float[Array, "*copies inputs"] | None) -> None:
        values = checked_input(self.spec, x).reshape(-1, self.spec.inputs.size)
        self._x = values.astype(self._dtype)
        self._states = None
        self._examples += 1

    def nudge(self, target: Float[Array, "*copies outputs"] | None, beta: float) -> None:
        target, beta = checked_nudge(self.spec, target, beta)
        refuse_nudge_of_held(self._held, beta)
        self._beta = beta
        self._target = target.reshape(-1, self.spec.outputs.size).astype(self._dtype)

    def settle(self) -> Status:
        settle = self._apparatus.settle
        parameters, self._states, self.status = settle(self._parameters.tree, self._knobs.tree, *self._conditions())
        self._parameters = _Vector(parameters)
        return self.status

    def read(self) -> Reading:
        if self._states is None:
            self._states = jax.vmap(self.substrate.initial_state)(self._x)
        outputs = np.asarray(_read(self._apparatus, self._parameters.tree, self._states, self._x), float)
        return _PlantReading(outputs.reshape(*self.spec.leading, -1), self._parameters, self._knobs)

    # what a simulation can do besides

    def hold(self, theta: Float[Array, "parameters"] | None = None) -> Status:
        """Settles with the parameters held at theta, and sets the knobs that hold them: u = theta + epsilon dE/dtheta.

        An experimenter finds these knobs by feedback; a simulation knows them. Nothing here looks at a nudge's cost.
        """
        if theta is not None and theta is not self._parameters.numbers:
            self._parameters = self._vector(theta)
        knobs, self._states, self.status = self._apparatus.hold(self._parameters.tree, *self._conditions())
        self._knobs = _Vector(knobs)
        return self.status

    def hold_outputs(self, target: Float[Array, "*copies outputs"] | None) -> None:
        """Holds the outputs, by a `Pin` on each copy; None releases them.

        Raises:
            ValueError: for a target that does not fit, and while a nudge acts.
            NudgeRefusedError: for a substrate whose outputs cannot be held, or are read through its parameters.
        """
        held = checked_hold(self.spec, target, self._beta)
        if held is not None and self._why_never_held:
            raise NudgeRefusedError(self._why_never_held)
        self._held = None if held is None else held.reshape(-1, self.spec.outputs.size).astype(self._dtype)

    def simulation(self) -> tuple[Apparatus, PyTree, int]:
        """(what it does as pure functions, its parameters, how many inputs it has met)."""
        return self._apparatus, self._parameters.tree, self._examples

    def resume(self, place: Place | None, status: Status, met: int) -> None:
        """Goes on from where compiled steps came to; None leaves it where it is."""
        if place is not None:
            parameters, knobs, self._states, self._x, self._target, self._beta = place
            self._held = None
            self._parameters, self._knobs = _Vector(parameters), _Vector(knobs)
        self.status, self._examples = status, met

    def read_conjugate(self) -> Float[Array, "parameters"]:
        """dE/dtheta at the state at hand, averaged over copies."""
        observed = self.substrate.measure(self._states, self._x)
        return np.asarray(ravel_pytree(split_parameters(observed)[0])[0], float)

    @property
    def substrate(self) -> Substrate:
        """The substrate with the parameters where they are."""
        return self._apparatus.system(self._parameters.tree)

    @property
    def epsilon(self) -> Any:
        """The compliance of the knobs' springs: one number, or a tree like the parameters."""
        return getattr(self._apparatus.control, "epsilon", None)

    def __repr__(self) -> str:
        spec = self.spec
        copies = "" if spec.copies is None else f", {spec.copies} copies"
        return (
            f"Plant({self._substrate_type.__name__}: {spec.knobs.size} knobs, {spec.inputs.size} inputs, "
            f"{spec.outputs.size} outputs{copies})"
        )

    # inside

    @cached_property
    def _why_never_held(self) -> str:
        """Why outputs of this kind of system cannot be held; "" where they can."""
        system, kind = self.substrate, self._substrate_type.__name__
        if not (system.pins and system.solver.pins):
            return f"target: outputs of {kind} cannot be held, only nudged"
        if reads_parameters(system, system.initial_state(self._x[0]), self._x[0]):
            return (
                f"target: {kind} reads its outputs through parameters, which would settle with outputs that are held; "
                "nudge them"
            )
        return ""

    def _conditions(self) -> tuple[Any, ...]:
        """(inputs, nudge, start, keys) of a relaxation."""
        beta = None if self._beta == 0 else np.asarray(self._beta, self._dtype)
        nudge = self._apparatus.nudge(self._target, beta) if self._held is None else Pin(self._held)
        return self._x, nudge, self._states, self._apparatus.keys(self._examples, self._x.shape[0])

    def _vector(self, values: Array) -> _Vector:
        return _Vector(self._unravel(jnp.asarray(values, self._parameter_dtype)))

    def _specify(self, substrate: Substrate, flat: jax.Array, inputs: int | None, knob_range: tuple) -> Spec:
        size = substrate.input_size if inputs is None else inputs
        if size is None:
            raise ValueError(f"inputs: {type(substrate).__name__} does not tell how many inputs it has; give inputs=")
        x = jnp.zeros(size, self._dtype)
        outputs = eqx.filter_eval_shape(lambda net, x: net.read(net.initial_state(x), x), substrate, x).shape
        lower, upper = self._limit(flat, -1), self._limit(flat, 1)
        count = int(flat.size)
        return Spec(
            knobs=Terminals(count, "", *knob_range),
            parameters=Terminals(count, "", lower, upper),
            inputs=Terminals(size),
            outputs=Terminals(int(np.prod(outputs))),
            copies=self._copies,
        )

    def _limit(self, flat: jax.Array, sign: int) -> Array | float:
        """The physical limit of each parameter on one side, infinite where there is none; one number where all are.

        Where limits depend on each other it is the limit of parameters of one kind while all others are large.
        """
        kinds = jax.tree.leaves(self._unravel(flat))
        ends = np.cumsum([0, *(leaf.size for leaf in kinds)])
        limit = np.full(flat.size, sign * np.inf)
        for start, stop in itertools.pairwise(ends):
            pushed = jnp.full_like(flat, _FAR**2).at[start:stop].set(sign * _FAR)
            held = eqx.combine(self._unravel(pushed), self._rest).constrained()
            stopped = np.asarray(ravel_pytree(split_parameters(held)[0])[0], float)[start:stop]
            limit[start:stop] = np.where(np.abs(stopped) >= 0.99 * _FAR, sign * np.inf, stopped)
        return limit if np.any(np.isfinite(limit)) else sign * np.inf


class _Vector:
    """A tree of parameters, never changed, that becomes a vector of numpy when somebody looks."""

    def __init__(self, tree: PyTree):
        self.tree = tree

    @cached_property
    def numbers(self) -> Array:
        numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(self.tree)], dtype=float)
        numbers.flags.writeable = False
        return numbers


class _PlantReading(Reading):
    """A reading whose large vectors are made when somebody looks at them."""

    vectors: dict[str, _Vector]

    def __init__(
        self,
        outputs: Array,
        parameters: _Vector | Array,
        knobs: _Vector | Array,
        output_error: float | None = None,
        parameter_error: float | None = None,
    ):
        given = {"parameters": parameters, "knobs": knobs, "parameter_error": parameter_error}
        vectors = {name: value for name, value in given.items() if isinstance(value, _Vector)}
        numbers = {name: value for name, value in given.items() if value is not None and name not in vectors}
        self.__dict__.update(outputs=outputs, output_error=output_error, vectors=vectors, **numbers)

    @cached_property
    def parameters(self) -> Array:
        return self.vectors["parameters"].numbers

    @cached_property
    def knobs(self) -> Array:
        return self.vectors["knobs"].numbers

    @cached_property
    def parameter_error(self) -> float:
        """What a joint relaxation leaves open."""
        largest = max(float(np.max(self.parameters)), -float(np.min(self.parameters)))
        return rest_threshold(jax.tree.leaves(self.vectors["parameters"].tree)[0].dtype) * largest


@eqx.filter_jit
def _read(apparatus, parameters, states, xs):
    return whole(apparatus.read(parameters, states, xs))


def _compliance(epsilon: Any, parameters: PyTree) -> Any:
    """epsilon as one number, or as a tree like the parameters."""
    values = epsilon.values() if isinstance(epsilon, Mapping) else [epsilon]
    if not all(np.ndim(value) == 0 and 0 < value < np.inf for value in values):
        raise ValueError(f"epsilon: wanted positive numbers, got {epsilon}")
    if not isinstance(epsilon, Mapping):
        return epsilon
    try:
        rules = match_paths(epsilon, parameters)
    except ValueError as error:
        raise ValueError(f"epsilon: {error}") from error
    return jax.tree.map(lambda rule: float(epsilon[rule]), rules)
