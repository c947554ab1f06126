"""A simulated substrate on the bench: its parameters are physical, and only the five verbs touch it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PRNGKeyArray, PyTree

from substrates.laboratory.system import Reading, Spec, Terminals, checked_input, checked_knobs, checked_nudge
from substrates.nudge import Cost, Nudge, SquaredError, as_tree
from substrates.solvers.joint import Control, JointEquilibrium, SpringControl, joint_status, rest_threshold
from substrates.solvers.solver import Status
from substrates.substrate import Substrate, match_paths, parameter_dtype, relax_batch, split_parameters

Array = np.ndarray


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
        max_rounds: int = 1000,
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
        if not flat.size:
            raise ValueError("substrate: wanted at least one trainable parameter, got none")
        if (epsilon is None) == (control is None):
            raise ValueError("epsilon, control: wanted one of the two")
        self._control = SpringControl(_compliance(epsilon, parameters)) if control is None else control
        self._control = jax.tree.map(lambda leaf: jnp.asarray(leaf, flat.dtype), self._control)
        self._dtype = parameter_dtype(substrate)
        self._cost, self._max_rounds, self._copies = as_tree(cost or SquaredError()), max_rounds, copies
        self._key, self._examples = key, 0
        self._parameters = self._knobs = parameters
        self._substrate_type = type(substrate)
        self.spec = self._specify(substrate, flat, inputs, knob_range)
        self._x = jnp.asarray(checked_input(self.spec, None).reshape(-1, self.spec.inputs.size), self._dtype)
        self._target: Any = None
        self._beta = 0.0
        self._states: PyTree = None
        self._numbers: dict[str, tuple[PyTree, Array]] = {}
        self.status = Status.converged

    # the five verbs

    def set_knobs(self, u: Float[Array, "knobs"]) -> None:
        values = checked_knobs(self.spec, u)
        self._knobs = self._unravel(jnp.asarray(values, self._flat(self._knobs).dtype))

    def clamp(self, x: Float[Array, "*copies inputs"] | None) -> None:
        values = checked_input(self.spec, x).reshape(-1, self.spec.inputs.size)
        self._x = jnp.asarray(values, self._dtype)
        self._states = None
        self._examples += 1

    def nudge(self, target: Float[Array, "*copies outputs"] | None, beta: float) -> None:
        target, self._beta = checked_nudge(self.spec, target, beta)
        self._target = jnp.asarray(target.reshape(-1, self.spec.outputs.size), self._dtype)

    def settle(self) -> Status:
        conditions = self._conditions()
        found = _settle_jointly(self._system(), self._control, self._knobs, conditions, self._max_rounds)
        self._parameters = split_parameters(found.system)[0]
        return self._at_rest(found)

    def read(self) -> Reading:
        if self._states is None:
            self._states = jax.vmap(self._system().initial_state)(self._x)
        outputs = np.asarray(_read(self._system(), self._states, self._x), float)
        parameters, knobs = self._shown("_parameters"), self._shown("_knobs")
        error = float(rest_threshold(self._dtype) * np.max(np.abs(parameters)))
        return Reading(outputs.reshape(*self.spec.leading, -1), parameters, knobs, parameter_error=error)

    # what a simulation can do besides

    def hold(self, theta: Float[Array, "parameters"] | None = None) -> Status:
        """Settles with the parameters held at theta, and sets the knobs that hold them: u = theta + epsilon dE/dtheta.

        An experimenter finds these knobs by feedback; a simulation knows them. Nothing here looks at a nudge's cost.
        """
        if theta is not None and theta is not self._shown("_parameters"):
            held = jnp.asarray(theta, self._flat(self._parameters).dtype)
            self._parameters = self._unravel(held)
        found, self._knobs = _hold(self._system(), self._control, self._conditions())
        return self._at_rest(found)

    def read_conjugate(self) -> Float[Array, "parameters"]:
        """dE/dtheta at the state at hand, averaged over copies."""
        observed = self._system().measure(self._states, self._x)
        return np.asarray(self._flat(split_parameters(observed)[0]), float)

    @property
    def substrate(self) -> Substrate:
        """The substrate with the parameters where they are."""
        return self._system()

    @property
    def epsilon(self) -> Any:
        """The compliance of the knobs' springs: one number, or a tree like the parameters."""
        return getattr(self._control, "epsilon", None)

    def __repr__(self) -> str:
        spec = self.spec
        copies = "" if spec.copies is None else f", {spec.copies} copies"
        return (
            f"Plant({self._substrate_type.__name__}: {spec.knobs.size} knobs, {spec.inputs.size} inputs, "
            f"{spec.outputs.size} outputs{copies})"
        )

    # inside

    def _system(self) -> Any:
        return eqx.combine(self._parameters, self._rest)

    def _conditions(self) -> tuple[Any, ...]:
        """(inputs, nudge, start, keys) of a relaxation."""
        nudge = None if self._beta == 0 else Nudge(self._cost, self._target, jnp.asarray(self._beta, self._dtype))
        keys = None
        if self._key is not None:
            keys = jax.random.split(jax.random.fold_in(self._key, self._examples), self._x.shape[0])
        return self._x, nudge, self._states, keys

    def _at_rest(self, found: JointEquilibrium) -> Status:
        self._states = found.states.state
        self.status = found.status
        return found.status

    def _shown(self, name: str) -> Array:
        """One of its trees as a read-only vector of numpy, made once for every tree."""
        tree = getattr(self, name)
        known, numbers = self._numbers.get(name, (None, None))
        if numbers is None or known is not tree:
            numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)], dtype=float)
            numbers.flags.writeable = False
            self._numbers[name] = tree, numbers
        return numbers

    def _flat(self, tree: PyTree) -> jax.Array:
        return ravel_pytree(tree)[0]

    def _specify(self, substrate: Substrate, flat: jax.Array, inputs: int | None, knob_range: tuple) -> Spec:
        size = substrate.input_size if inputs is None else inputs
        if size is None:
            raise ValueError(f"inputs: {type(substrate).__name__} does not tell how many inputs it has; give inputs=")
        x = jnp.zeros(size, self._dtype)
        outputs = eqx.filter_eval_shape(lambda net, x: net.read(net.initial_state(x), x), substrate, x).shape
        lower, upper = (self._limit(flat, sign * 1e30) for sign in (-1, 1))
        count = int(flat.size)
        return Spec(
            knobs=Terminals(count, "", *knob_range),
            parameters=Terminals(count, "", lower, upper),
            inputs=Terminals(size),
            outputs=Terminals(int(np.prod(outputs))),
            copies=self._copies,
        )

    def _limit(self, flat: jax.Array, far: float) -> Array | float:
        """The physical limit of each parameter on one side, infinite where there is none; one number where all are."""
        pushed = eqx.combine(self._unravel(jnp.full_like(flat, far)), self._rest).constrained()
        stopped = np.asarray(self._flat(split_parameters(pushed)[0]), float)
        limit = np.where(np.abs(stopped) >= 0.99e30, np.sign(far) * np.inf, stopped)
        return limit if np.any(np.isfinite(limit)) else np.sign(far) * np.inf


@eqx.filter_jit
def _settle_jointly(system, control, knobs, conditions, max_rounds) -> JointEquilibrium:
    xs, nudge, starts, keys = conditions
    return system.relax_jointly(control, knobs, xs, nudge, starts, keys, max_rounds=max_rounds)


@eqx.filter_jit
def _hold(system, control, conditions) -> tuple[JointEquilibrium, PyTree]:
    xs, nudge, starts, keys = conditions
    found = relax_batch(system, xs, nudge, starts, keys)
    force = split_parameters(system.measure(found.state, xs, nudge))[0]
    knobs = control.holding(split_parameters(system)[0], force)
    at_rest = jnp.zeros((), parameter_dtype(system))
    return JointEquilibrium(system, found, jnp.ones((), jnp.int32), joint_status(found, at_rest, at_rest)), knobs


@eqx.filter_jit
def _read(system, states, xs):
    return jax.vmap(system.read)(states, xs)


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
