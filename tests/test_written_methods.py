"""What the methods of a user's own substrate return is taken, or refused by the name of the method."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from where_raised import refusal

from learning import EquilibriumPropagation, fit
from substrates import Status, Substrate
from theory_checks import check_substrate

KEY = jax.random.key(0)
X = jnp.array([[0.3, 0.1], [-0.4, 0.2]])


class Springs(Substrate):
    """Two springs pulled by x: s = x / k."""

    stiffness: jax.Array

    def energy(self, state, x):
        return 0.5 * jnp.sum(self.stiffness * state**2) - jnp.sum(state * x)

    def initial_state(self, x):
        return jnp.zeros(2)

    def read(self, state, x):
        return state


WRONG = {
    "a vector of energies": (
        {"energy": lambda self, state, x: self.stiffness * state**2},
        r"energy: wanted one number, of shape \(\) from Mine.energy, got float64 of shape \(2,\); add up",
    ),
    "an energy in a row": (
        {"energy": lambda self, state, x: jnp.sum(state**2, keepdims=True)},
        r"energy: wanted one number, .* got float64 of shape \(1,\); add up",
    ),
    "a missing return": ({"energy": lambda self, state, x: None}, "energy: .* got None; does it return anything"),
    "a text for an energy": ({"energy": lambda self, state, x: "low"}, "energy: .* got 'low'; give an array of floats"),
    "a whole energy": ({"energy": lambda self, state, x: 3}, "energy: .* got 3; give an array of floats"),
    "an energy in a tuple": (
        {"energy": lambda self, state, x: (jnp.sum(state**2),)},
        r"energy: .* got a tuple of float64 of shape \(\)",
    ),
    "another shape of force": (
        {"force": lambda self, state, x: jnp.zeros(3)},
        r"force: wanted floats of shape \(2,\), like the state, from Mine.force, got float64 of shape \(3,\); give a",
    ),
    "the sum of forces": ({"force": lambda self, state, x: jnp.sum(x - state)}, r"force: .* got float64 of shape \(\)"),
    "a force in a list": (
        {"force": lambda self, state, x: [x - state]},
        r"force: .* got a list of float64 of shape \(2,\)",
    ),
    "a start that is a number": ({"initial_state": lambda self, x: 0.0}, "initial_state: .* got 0.0; give an array of"),
    "a start of whole numbers": (
        {"initial_state": lambda self, x: jnp.zeros(2, int)},
        r"initial_state: wanted an array of floats, or a tree of them, from Mine.initial_state, got int64 of shape",
    ),
    "a list of numbers as a start": (
        {"initial_state": lambda self, x: [0.0, 0.0]},
        "initial_state: .* got a list of 0.0 and 0.0",
    ),
    "no start": ({"initial_state": lambda self, x: None}, "initial_state: .* got None; does it return anything"),
    "one output as a scalar": (
        {"read": lambda self, state, x: state[0]},
        r"read: wanted an array of shape \(outputs,\) from Mine.read, got float64 of shape \(\); a single output has",
    ),
    "no reading": ({"read": lambda self, state, x: None}, "read: .* got None; does it return anything"),
    "a text for a reading": ({"read": lambda self, state, x: "up"}, "read: .* got 'up'; give an array of floats"),
    "a reading in a tuple": ({"read": lambda self, state, x: (state,)}, "read: .* got a tuple of .*; give an array"),
    "one side of bounds": (
        {"bounds": lambda self, x: jnp.zeros(2)},
        r"bounds: wanted None or a pair \(lower, upper\), each of shape \(2,\), .* from Mine.bounds, got ",
    ),
    "bounds of another shape": (
        {"bounds": lambda self, x: (jnp.zeros(3), jnp.ones(3))},
        r"bounds: .* got tuple of \(3,\) and \(3,\); give each variable both",
    ),
    "bounds that are two numbers": ({"bounds": lambda self, x: (0.0, 1.0)}, r"bounds: .* got tuple of \(\) and \(\)"),
    "a reading of whole numbers": ({"read": lambda self, state, x: jnp.zeros(2, int)}, "read: .* got int64 of shape"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_method_must_not_return_is_refused_by_its_name(what):
    methods, words = WRONG[what]
    net = type("Mine", (Springs,), methods)(jnp.array([1.0, 2.0]))
    learn = lambda: fit(
        net, EquilibriumPropagation(0.1), (X, X), optimiser=optax.sgd(0.1), epochs=1, key=KEY, progress=False
    )
    for call in (lambda: net.relax(X[0]), learn, lambda: check_substrate(net, X, X)):
        error = refusal(call)
        with pytest.raises(ValueError, match=words):
            raise error


def test_bounds_in_the_wrong_order_are_refused_by_the_kit():
    crossed = type("Crossed", (Springs,), {"bounds": lambda self, x: (jnp.ones(2), jnp.zeros(2))})
    net = crossed(jnp.array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"bounds: wanted lower bounds .* Crossed.bounds, .* in this order"):
        check_substrate(net, X, X)
    found = net.relax(X[0])
    assert found.status == Status.infeasible
    assert "lower bounds are above" in Status[found.status]


UNTRACEABLE = {
    "NumPy": {"energy": lambda self, state, x: float(np.sum(np.asarray(state) ** 2))},
    "a float": {"energy": lambda self, state, x: float(jnp.sum(state**2))},
    "if": {"force": lambda self, state, x: x - state if state[0] > 0 else x - 2 * state},
    "a NumPy reading": {"read": lambda self, state, x: np.asarray(state)},
}


@pytest.mark.parametrize("what", UNTRACEABLE)
def test_what_cannot_be_traced_is_told_by_the_name_of_the_method(what):
    (name,) = UNTRACEABLE[what]
    net = type("Mine", (Springs,), UNTRACEABLE[what])(jnp.array([1.0, 2.0]))
    with pytest.raises(
        TypeError, match=rf"^{name}: .* got Mine.{name}, .* write jnp in place of np, jnp.where in place"
    ):
        EquilibriumPropagation(0.1)(net, X, X)


class OtherWords(Substrate):
    """With methods whose arguments have names of the user's own, and a state in a dict."""

    stiffness: jax.Array

    def energy(self, s, u):
        return 0.5 * jnp.sum(self.stiffness * s["a"] ** 2) + 0.5 * s["b"] ** 2 - jnp.sum(s["a"] * u)

    def force(self, s, u):
        return {"a": u - self.stiffness * s["a"], "b": -s["b"]}

    def initial_state(self, u):
        return {"a": np.zeros(2), "b": np.float64(1.0)}

    def read(self, s, u):
        return s["a"]


def test_states_in_trees_and_arguments_of_other_names_are_taken():
    found = OtherWords(jnp.array([1.0, 2.0])).relax(X[0])
    assert found.converged
    np.testing.assert_allclose(found.state["a"], X[0] / jnp.array([1.0, 2.0]), rtol=1e-12)


def test_a_force_of_another_tree_is_refused_under_other_names_too():
    half = type("Half", (OtherWords,), {"force": lambda self, s, u: {"a": -s["a"]}})
    with pytest.raises(ValueError, match=r"force: wanted floats of shape \(2,\) and \(\), like .* a dict of"):
        half(jnp.array([1.0, 2.0])).relax(X[0])


def test_looking_at_results_adds_nothing_to_compiled_programs():
    net = Springs(jnp.array([1.0, 2.0]))
    bare = lambda state, x: 0.5 * jnp.sum(net.stiffness * state**2) - jnp.sum(state * x)
    count = lambda function: len(jax.make_jaxpr(function)(X[0], X[0]).eqns)
    assert count(net.energy) == count(bare)
