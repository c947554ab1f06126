"""Whatever is given to public methods, rules and constructors is taken, or refused by the project itself, by name."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
import scipy.sparse
from every_system import KEY, SYSTEMS, input_size
from where_raised import refusal

from learning import (
    Averaged,
    BackpropThroughTime,
    ContrastiveLearning,
    CoupledLearning,
    CrossEntropy,
    EquilibriumPropagation,
    FeedbackAlignment,
    FluctuationResponse,
    HolomorphicEP,
    ImplicitGradient,
    KnobDescent,
    Mismatch,
    NodePerturbation,
    OscillatingEP,
    PhysicsAware,
    RandomWeights,
    RecurrentBackprop,
    SimultaneousPerturbation,
    SquaredError,
    calibrate,
    evaluate,
    fit,
)
from substrates import Nudge, Pin, Plant
from theory_checks import check_substrate

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


@pytest.mark.parametrize("name", BUILT)
def test_an_equilibrium_is_taken_for_its_state_and_lists_for_inputs(name):
    net, x = BUILT[name], X[name]
    found = net.relax(x, key=KEY)
    listed = [float(value) for value in x]
    for method in (net.read, net.energy if net.conservative else net.force):
        for a, b in zip(*(jax.tree.leaves(method(*pair)) for pair in ((found, listed), (found.state, x))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    again = net.relax(listed, start=found, key=KEY)
    same = net.relax(x, start=found.state, key=KEY)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    if not net.conservative:
        return
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
    shown = net.read(STATE[name], x)
    if strange != "number":  # one is a strength, and the target of a single output
        assert refusal(lambda: net.relax(x, Nudge(SquaredError(), given, 0.1), key=KEY))
        assert refusal(lambda: net.relax(x, Pin(given), key=KEY))
        assert refusal(lambda: net.relax(x, Nudge(SquaredError(), shown, given), key=KEY))
        assert given is None or refusal(lambda: net.relax(x, Nudge(SquaredError(), shown, 0.1, [given]), key=KEY))


CIRCUIT = BUILT["resistors of a graph"]
BATCH, TARGETS = jnp.array([[1.0, 0.0], [0.3, -0.5], [0.2, 0.4]]), jnp.array([[0.4], [0.1], [0.3]])
RULES = {
    "contrast": EquilibriumPropagation(0.1),
    "averaged": Averaged(EquilibriumPropagation(0.1), 2),
    "fluctuations": FluctuationResponse(1.0, samples=2),
    "implicit": ImplicitGradient(),
    "contrastive": ContrastiveLearning(),
    "coupled": CoupledLearning(0.1),
    "holomorphic": HolomorphicEP(0.1, 3),
    "oscillating": OscillatingEP(0.1, 3),
    "order zero": SimultaneousPerturbation(0.1),
    "nodes": NodePerturbation(0.1),
    "twin": PhysicsAware(Mismatch(0.1)),
    "feedback": FeedbackAlignment(),
    "recurrent": RecurrentBackprop(2, 0.1, strict=False),
    "through time": BackpropThroughTime(2, 0.1),
}


def train(data=(BATCH, TARGETS), rule=RULES["contrast"], net=CIRCUIT, **options):
    return fit(net, rule, data, **{"optimiser": optax.sgd(0.1), "epochs": 0, "key": KEY, "progress": False, **options})


@pytest.mark.parametrize("strange", STRANGE)
def test_rules_and_checks_refuse_strange_batches(strange):
    given = STRANGE[strange]
    for rule in RULES.values():
        assert refusal(lambda rule=rule: rule(CIRCUIT, given, TARGETS, key=KEY))
        assert refusal(lambda rule=rule: rule(CIRCUIT, BATCH, given, key=KEY))
        assert refusal(lambda rule=rule: rule(given, BATCH, TARGETS, key=KEY))
        assert given is None or refusal(lambda rule=rule: rule(CIRCUIT, BATCH, TARGETS, key=given))
    for x, y in ((given, TARGETS), (BATCH, given)):
        assert refusal(lambda x=x, y=y: train((x, y)))
        assert refusal(lambda x=x, y=y: evaluate(CIRCUIT, (x, y)))
        assert refusal(lambda x=x, y=y: check_substrate(CIRCUIT, x, y))
        assert refusal(lambda x=x, y=y: calibrate(Plant(CIRCUIT, 0.1), x, y))
    assert refusal(lambda: train(given))
    assert refusal(lambda: evaluate(CIRCUIT, given))
    assert refusal(lambda: evaluate(given, (BATCH, TARGETS)))
    assert refusal(lambda: check_substrate(given, BATCH, TARGETS))
    assert refusal(lambda: calibrate(given, BATCH[0], TARGETS[0]))
    assert refusal(lambda: train(net=given))
    assert refusal(lambda: train(rule=given))
    assert refusal(lambda: train(optimiser=given))
    assert refusal(lambda: train(key=given))
    assert refusal(lambda: train(epochs=given))
    assert given is None or refusal(lambda: train(validation=given))
    assert given is None or refusal(lambda: train(batch_size=given))
    assert given is None or refusal(lambda: evaluate(CIRCUIT, (BATCH, TARGETS), batch_size=given))
    assert given is None or refusal(lambda: evaluate(CIRCUIT, (BATCH, TARGETS), key=given))
    if strange != "number":
        assert refusal(lambda: EquilibriumPropagation(given))
        assert refusal(lambda: FluctuationResponse(given))
        assert isinstance(given, dict) or refusal(lambda: SimultaneousPerturbation(given))  # by paths
        assert refusal(lambda: NodePerturbation(given))
        assert refusal(lambda: Mismatch(given))
        assert refusal(lambda: KnobDescent(SimultaneousPerturbation(0.1), given))
        assert refusal(lambda: RecurrentBackprop(2, given))
        assert refusal(lambda: BackpropThroughTime(2, given))
        assert refusal(lambda: CoupledLearning(given))
        assert refusal(lambda: HolomorphicEP(given))
        assert refusal(lambda: OscillatingEP(given))
    assert refusal(lambda: KnobDescent(given, 0.1))
    assert refusal(lambda: RandomWeights(given))
    if not callable(given):
        assert refusal(lambda: EquilibriumPropagation(0.1, cost=given))
        assert refusal(lambda: PhysicsAware(given))
        assert refusal(lambda: FeedbackAlignment(given))
        assert refusal(lambda: Nudge(given, TARGETS[0], 0.1))


MISTAKES = [
    (lambda: train(key=0), r"key: wanted a JAX key, got 0; give jax.random.key\(0\)"),
    (lambda: train(optimiser=0.1), r"optimiser: wanted an optax transformation, got 0.1; give optax.sgd\(0.1\)"),
    (lambda: EquilibriumPropagation("0.1"), "beta: wanted a positive number, got '0.1'; the variant chooses the sign"),
    (lambda: EquilibriumPropagation(0.1, cost=CrossEntropy), r"cost: wanted a cost, got the class CrossEntropy; give"),
    (lambda: CIRCUIT.relax(BATCH[0], key=7), r"key: wanted a JAX key, got 7; give jax.random.key\(7\)"),
    (lambda: CIRCUIT.relax(None), r"x: wanted an array of numbers, got NoneType"),
    (
        lambda: CIRCUIT.relax(BATCH),
        r"x: wanted shape \(2,\), one number per input, got \(3, 2\); relax_batch or jax.vmap",
    ),
    (
        lambda: CIRCUIT.relax(BATCH[0], Pin(jnp.zeros(2))),
        r"target: wanted shape \(1,\), like the outputs, got .* \(2,\)",
    ),
    (
        lambda: CIRCUIT.relax(BATCH[0], Nudge(SquaredError(), jnp.zeros(1), np.inf)),
        r"beta: wanted a finite strength of the nudge, got inf; Pin\(target\) holds",
    ),
    (lambda: CIRCUIT.relax(BATCH[0], 0.1), r"nudge: wanted a Nudge, a Pin or None, got float; give Nudge"),
    (lambda: CIRCUIT.relax(BATCH[0], solver="Newton"), "solver: wanted a Solver or None, got str"),
    (lambda: CIRCUIT.read(jnp.zeros(3), BATCH[0]), r"state: wanted shape \(2,\), a state of this system, got \(3,\)"),
    (lambda: CIRCUIT.read(jnp.zeros((5, 2)), BATCH[0]), r"state: wanted shape .* got \(5, 2\): jax.vmap takes batches"),
    (lambda: CIRCUIT.measure(jnp.zeros((4, 2)), BATCH), r"states: wanted shape \(3, 2\), a state for each example"),
    (lambda: CIRCUIT.measure(jnp.zeros(2), BATCH[0]), r"xs: wanted shape \(n, 2\), .* got \(2,\): add a leading axis"),
    (
        lambda: RULES["contrast"](CIRCUIT, BATCH[0], TARGETS),
        r"x: wanted shape \(n, 2\), .* add a leading axis, x\[None\]",
    ),
    (lambda: RULES["contrast"](CIRCUIT, BATCH, jnp.zeros((3, 4))), r"y: wanted shape \(n, 1\) with n = 3 examples"),
    (lambda: RULES["contrast"](CIRCUIT, jnp.ones((4, 2)), TARGETS), "x, y: wanted the same leading axis of examples"),
    (lambda: train((BATCH[:, :1], TARGETS)), r"data, X: wanted shape \(n, 2\), one row for each example, got \(3, 1\)"),
    (lambda: train((BATCH[0], TARGETS[0])), r"data: wanted X and Y with the same .* example give X\[None\], Y\[None\]"),
    (lambda: train((scipy.sparse.eye(3), TARGETS)), r"data: wanted arrays, got a sparse matrix"),
    (lambda: calibrate(CIRCUIT, BATCH[0], TARGETS[0]), "system: wanted a PhysicalSystem, got ResistorNetwork; put"),
    (lambda: evaluate(Plant(CIRCUIT, 0.1), (BATCH, TARGETS)), "substrate: wanted a Substrate, got Plant"),
]


@pytest.mark.parametrize(("call", "words"), MISTAKES)
def test_known_mistakes_are_explained(call, words):
    error = refusal(call)
    with pytest.raises(type(error), match=words):
        raise error
