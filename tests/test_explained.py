"""Errors end with the page that explains them, and the page is there."""

import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import AgnosticEP, EquilibriumPropagation, ImplicitGradient, NodePerturbation, SquaredError, fit
from learning.homeostat import IntegralControl
from substrates import IsingModel, Nudge, Plant, ResistorNetwork, Substrate, explained
from substrates.laboratory.system import Spec, Terminals, checked_knobs

ROOT = Path(__file__).parent.parent
ADDRESSES = {name: address for name, address in vars(explained).items() if name.isupper() and name[0] != "_"}
ADDRESS = re.compile(r"docs/(?P<page>\w+\.md)#(?P<anchor>[\w-]+)")


def anchors(page):
    """Those of the headings, as sites and editors form them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), flags=re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("name", ADDRESSES)
def test_every_page_and_anchor_exists_and_some_error_names_it(name):
    found = ADDRESS.fullmatch(ADDRESSES[name])
    assert found, ADDRESSES[name]
    assert anchors((ROOT / "docs" / found["page"]).read_text()).count(found["anchor"]) == 1
    sources = (path for package in ("substrates", "learning") for path in (ROOT / package).rglob("*.py"))
    assert any(f"explained.{name}" in path.read_text() for path in sources)


def test_anchors_are_those_of_headings_alone():
    assert anchors("# A rule, and its `beta`\n```sh\n# no heading\n```\n## One-way\n") == [
        "a-rule-and-its-beta",
        "one-way",
    ]


EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3)]
X, Y, KEY = jnp.array([[1.0, -0.5], [0.2, 0.4]]), jnp.array([[0.3], [0.1]]), jax.random.key(0)


def circuit(edges=EDGES, n=4, **elements):
    return ResistorNetwork.from_edges(edges, n, inputs=[0, 2], outputs=[3], conductance=1.0, **elements)


class Spring(Substrate):
    stiffness: jax.Array

    def energy(self, position, x):
        return 0.5 * self.stiffness * position[0] ** 2 - jnp.sum(x) * position[0]

    def initial_state(self, x):
        return jnp.zeros(1)

    def read(self, position, x):
        return position


class Crooked(Spring):
    def energy(self, position, x):
        return self.stiffness * position**2  # of shape (1,)


class Unfinished(Spring):
    energy = Substrate.energy


SPRING, CIRCUIT = Spring(jnp.array(1.0)), circuit()
SPINS = IsingModel.from_edges(EDGES, n=4, coupling=np.ones(5), inputs=[0, 2], outputs=[3])
TOO_STRONG = EquilibriumPropagation(2.0, variant="negative")
"""It takes away more stiffness than the spring has."""


def train(system, rule, x=X, y=Y):
    return fit(system, rule, (x, y), optimiser=optax.sgd(0.1), epochs=1, key=KEY, progress=False)


def turned(knob):
    one = Terminals(1)
    checked_knobs(Spec(knobs=Terminals(1, "V", 0.0, 1.0), parameters=one, inputs=one, outputs=one), np.array([knob]))


def held():
    """A controller that may not go on until parameters are where they should be."""
    rule = AgnosticEP(0.1, homeostat=IntegralControl(gain=1e-3, max_rounds=2))
    fit(Plant(CIRCUIT, 0.5, inputs=2), rule, (X, Y), epochs=1, key=KEY, progress=False)


ERRORS = {
    "an example too many": (lambda: CIRCUIT.relax(X), "SHAPES"),
    "an axis too few": (lambda: TOO_STRONG(CIRCUIT, X[0], Y), "SHAPES"),
    "examples that do not match": (lambda: train(CIRCUIT, TOO_STRONG, y=Y[:1]), "SHAPES"),
    "targets of another shape": (lambda: train(CIRCUIT, TOO_STRONG, y=jnp.ones((2, 3))), "SHAPES"),
    "no energy": (lambda: Unfinished(jnp.array(1.0)).relax(X[0]), "METHODS"),
    "an energy of several numbers": (lambda: Crooked(jnp.array(1.0)).relax(X[0]), "METHODS"),
    "a floating node": (lambda: circuit(n=5), "CIRCUIT"),
    "sources that contradict": (lambda: circuit(voltage_sources=[(1, -1, 1.0), (1, -1, 2.0)]), "CIRCUIT"),
    "an unstable equilibrium": (lambda: TOO_STRONG(SPRING, X, Y), "NOT_AT_REST"),
    "the same, compiled": (lambda: jax.block_until_ready(eqx.filter_jit(TOO_STRONG)(SPRING, X, Y).cost), "NOT_AT_REST"),
    "the same, in training": (lambda: train(SPRING, TOO_STRONG), "NOT_AT_REST"),
    "a derivative of spins": (lambda: jax.grad(lambda x: SPINS.relax(x, key=KEY).state[1])(X[0]), "NO_DERIVATIVE"),
    "their gradient": (lambda: ImplicitGradient()(SPINS, X, Y, key=KEY), "NO_DERIVATIVE"),
    "forces on spins": (lambda: NodePerturbation(0.1)(SPINS, X, Y, key=KEY), "RULES"),
    "a complex nudge": (lambda: SPINS.relax(X[0], Nudge(SquaredError(), Y[0], 0.1j), key=KEY), "RULES"),
    "an impossible knob": (lambda: turned(-1.0), "BENCH"),
    "a parameter that is not held": (held, "BENCH"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_names_its_page_once(kind):
    call, name = ERRORS[kind]
    with pytest.raises((RuntimeError, TypeError, ValueError), match=re.escape(ADDRESSES[name])) as raised:
        call()
    assert str(raised.value).count("docs/") == 1, str(raised.value)
