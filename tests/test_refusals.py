"""Whatever is given to public methods, rules and constructors is taken, or refused by the project itself, by name."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from every_system import KEY, SYSTEMS, input_size
from where_raised import refusal

from learning import (
    SquaredError,
)
from substrates import (
    Nudge,
    Pin,
)

BUILT = {name: build() for name, build in SYSTEMS.items()}
systems = pytest.mark.parametrize("name", BUILT)
X = {name: jnp.linspace(0.2, 0.6, input_size(net)) for name, net in BUILT.items()}
STATE = {name: net.start(X[name], KEY) for name, net in BUILT.items()}

STRANGE = {
    "None": None,
    "text": "abc",
    "texts": ["a", "b"],
    "empty": [],
    "empty array": np.zeros(0),
    "number": 0.5,
    "dict": {"a": 1.0},
    "wide": np.zeros(17),
    "deep": np.zeros((2, 3, 4)),
    "batch of 19": np.zeros((5, 19)),
    "ragged": [[1.0], [1.0, 2.0]],
    "object": object(),
    "objects": np.array([object(), None]),
    "sparse": scipy.sparse.eye(3, format="csr"),
    "set": {1.0, 2.0},
    "complex": np.array([1 + 1j] * 17),
    "function": len,
    "class": int,
    "graph": nx.path_graph(3),
}


@systems
def test_an_equilibrium_is_taken_for_its_state_and_lists_for_inputs(name):
    net, x = BUILT[name], X[name]
    found = net.relax(x, key=KEY)
    listed = [float(value) for value in x]
    for method in (net.read, net.energy):
        for a, b in zip(*(jax.tree.leaves(method(*pair)) for pair in ((found, listed), (found.state, x))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    again = net.relax(listed, start=found, key=KEY)
    np.testing.assert_allclose(again.energy, net.relax(x, start=found.state, key=KEY).energy, rtol=1e-12)
    batch = jax.tree.map(lambda leaf: leaf[None], found)
    for a, b in zip(
        jax.tree.leaves(net.measure(batch, [listed])), jax.tree.leaves(net.measure(batch.state, x[None])), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@systems
@pytest.mark.parametrize("strange", STRANGE)
def test_strange_inputs_and_states_are_refused_by_the_project(name, strange):
    net, x, state, given = BUILT[name], X[name], STATE[name], STRANGE[strange]
    assert refusal(lambda: net.relax(given, key=KEY))
    assert refusal(lambda: net.initial_state(given))
    assert refusal(lambda: net.read(state, given))
    assert refusal(lambda: net.energy(state, given))
    assert refusal(lambda: net.energy(given, x))
    assert refusal(lambda: net.read(given, x))
    assert given is None or refusal(lambda: net.relax(x, start=given, key=KEY))
    assert refusal(lambda: net.measure(given, x[None]))
    assert refusal(lambda: net.measure(jax.tree.map(lambda leaf: leaf[None], state), given))
    assert given is None or refusal(lambda: net.relax(x, given, key=KEY))
    assert given is None or refusal(lambda: net.relax(x, key=given))
    assert given is None or refusal(lambda: net.relax(x, key=KEY, solver=given))
    if hasattr(net, "draw"):
        refused = refusal(lambda: net.draw(state, given))
        assert refused
        assert given is not None or "x: wanted the input that belongs to the state, got None" in str(refused)
        assert given is None or refusal(lambda: net.draw(given, x))


@systems
@pytest.mark.parametrize("strange", STRANGE)
def test_strange_targets_and_pins_are_refused_by_the_project(name, strange):
    net, x, given = BUILT[name], X[name], STRANGE[strange]
    assert refusal(lambda: net.relax(x, Nudge(SquaredError(), given, 0.1), key=KEY))
    assert refusal(lambda: net.relax(x, Pin(given), key=KEY))
    assert refusal(lambda: net.relax(x, Nudge(SquaredError(), net.read(STATE[name], x), given), key=KEY))
