"""What makes no Ising model is refused, with a message that says what was wanted, what came and what to do."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from learning import EquilibriumPropagation, SquaredError
from substrates import IsingModel, Nudge
from substrates.classical.ising.annealing import Annealing
from substrates.classical.ising.enumeration import Enumeration
from substrates.classical.ising.layered import LayeredSpins
from substrates.classical.ising.tempering import Tempering
from substrates.wiring import Dense

EDGES = [(0, 1), (1, 2), (2, 0)]
KEY = jax.random.key(0)
NET = IsingModel.from_edges(EDGES, coupling=1.0, inputs=[0], outputs=[2])
X, Y = jnp.array([1.0]), jnp.array([-1.0])


def edges(**changes):
    return IsingModel.from_edges(**{"edges": EDGES, "coupling": 1.0, **changes})


def layered(**changes):
    return IsingModel.layered(**{"sizes": (2, 3, 1), "key": KEY, **changes})


def layers(couplings, fields, **options):
    return LayeredSpins(
        tuple(Dense(jnp.ones(shape)) for shape in couplings), tuple(jnp.zeros(n) for n in fields), **options
    )


def directed():
    return IsingModel.from_networkx(nx.DiGraph([(0, 1)]), coupling=1.0)


WRONG = [
    (lambda: edges(edges=[(0, 0)]), r"edges: wanted two different nodes, got the self-coupling \(0, 0\)"),
    (lambda: edges(edges=[(0, 1), (1, 0)]), r"edges: wanted each pair once, got \(0, 1\) more than once"),
    (lambda: edges(edges=[(0, 1.5)]), "edges: wanted an .m, 2. array of integers"),
    (lambda: edges(n=2), r"edges: wanted nodes from 0 to 1, got \(1, 2\)"),
    (lambda: edges(edges=[], n=0), "n: wanted at least one spin, got 0"),
    (lambda: edges(coupling=[1.0, np.nan, 2.0]), r"coupling: wanted finite numbers, got NaN or infinity at \[1\]"),
    (
        lambda: edges(coupling=[1.0, 2.0]),
        r"coupling: wanted one number or shape \(3,\), one per edge",
    ),
    (lambda: edges(coupling=1j), "coupling: wanted real numbers, got complex"),
    (lambda: edges(field=[0.0, np.inf, 0.0]), r"field: wanted finite numbers, got NaN or infinity at \[1\]"),
    (lambda: edges(field=np.zeros((3, 1))), r"field: wanted one number or shape \(3,\), one per spin"),
    (lambda: edges(inputs=[3], n=3), r"inputs: wanted spins from 0 to 2, got \[3\]"),
    (lambda: edges(outputs=[-1]), r"outputs: wanted spins from 0 to 2, got \[-1\]"),
    (lambda: edges(inputs=[0, 0]), r"inputs: wanted each spin once, got \[0, 0\]"),
    (lambda: edges(inputs=[1], outputs=[1]), r"outputs: wanted spins that no input holds, got \[1\]"),
    (lambda: edges(inputs=[0, 1, 2]), "inputs: wanted at least one free spin, got all 3 held"),
    (lambda: edges(inputs=["a"]), "inputs: wanted a sequence of integer numbers"),
    (lambda: jax.jit(lambda J: edges(coupling=J))(1.0), "coupling: wanted numbers when the model is built"),
    (lambda: IsingModel.all_to_all(np.ones((2, 3))), r"coupling: wanted a square matrix .* got shape \(2, 3\)"),
    (lambda: IsingModel.all_to_all(np.eye(3)), "coupling: wanted zeros on the diagonal, got the self-coupling 1.0"),
    (
        lambda: IsingModel.all_to_all(np.array([[0.0, 1.0], [0.5, 0.0]])),
        r"coupling: wanted a symmetric matrix, got J\[0, 1\] = 1.0 and J\[1, 0\] = 0.5",
    ),
    (
        lambda: IsingModel.lattice((0, 3)),
        r"shape: wanted whole numbers of spins along .*, at least 1, got \(0, 3\)",
    ),
    (lambda: IsingModel.lattice((2.5, 3)), "shape: wanted whole numbers of spins"),
    (
        lambda: IsingModel.lattice((32, 32), coupling=[1.0, np.nan]),
        r"coupling\[1\]: wanted finite numbers, got NaN or infinity at \[0\]",
    ),
    (
        lambda: IsingModel.lattice((3, 2), coupling=[1.0, [[1.0], [np.inf], [2.0]]]),
        r"coupling\[1\]: wanted finite numbers, got NaN or infinity at \[1\]",
    ),
    (
        lambda: IsingModel.lattice((32, 32), coupling=[1.0, -2.0, 3.0]),
        "coupling: wanted one number, a number or an array for each of the 2 axes, or a number for each of the 1984 "
        "edges, got a list of 3",
    ),
    (directed, "graph: wanted an undirected graph"),
    (lambda: IsingModel.from_networkx(nx.path_graph(3)), "coupling: wanted the attribute 'coupling' on every edge"),
    (
        lambda: IsingModel.from_networkx(nx.path_graph(3), coupling=1.0, inputs=["z"]),
        "inputs: wanted labels of nodes of the graph, got 'z'",
    ),
    (lambda: layered(sizes=(4,)), "sizes: wanted at least two positive integers"),
    (lambda: layered(sizes=(4, 0, 1)), "sizes: wanted at least two positive integers"),
    (lambda: layered(sizes=(4, 2.5)), "sizes: wanted at least two positive integers"),
    (lambda: layered(copies=0), "copies: wanted a whole number of spins per output, at least 1, got 0"),
    (lambda: layered(levels=(1.0, -1.0)), "levels: wanted two finite numbers, the lower one first"),
    (lambda: layered(gain=0.0), "gain: wanted a positive finite number, got 0.0"),
    (lambda: layered(coupling_limit=-1.0), "coupling_limit: wanted a positive finite number or None, got -1.0"),
    (lambda: layers([(2, 3), (4, 1)], [3, 1]), r"coupling\[1\]: wanted 3 rows, one per spin of .* got 4"),
    (lambda: layers([(2, 3), (3, 1)], [3, 2]), r"field\[1\]: wanted shape \(1,\), one per spin, got \(2,\)"),
    (lambda: layers([(2, 3), (3, 1)], [3]), "coupling, field: wanted one of each .* got 2 and 1"),
    (lambda: layers([(2, 3), (3, 4)], [3, 4], copies=3), "copies: wanted a divisor of the 4 output spins, got 3"),
    (lambda: layered().relax(X), r"x: wanted shape \(2,\), one number per input, got \(1,\)"),
    (lambda: NET.relax(jnp.zeros(2)), r"x: wanted shape \(1,\), one number per input, got \(2,\)"),
    (lambda: NET.relax(X, start=jnp.array([1.0, 0.5])), r"start: wanted spins \+1 or -1, .* got \[0.5\]"),
    (lambda: NET.relax(X, start=jnp.array([jnp.nan, 1.0])), r"start: wanted spins \+1 or -1, .* got \[nan\]"),
    (lambda: NET.relax(X, Nudge(SquaredError(), Y, 1j)), "beta: wanted a real number, got a complex one"),
    (
        lambda: IsingModel.lattice((5, 5)).relax(jnp.zeros(0), solver=Enumeration()),
        "solver: wanted at most 24 free spins to enumerate, got 25",
    ),
    (lambda: Annealing(sweeps=-1), "sweeps: wanted a whole number, at least 0, got -1"),
    (lambda: Annealing(replicas=0), "replicas: wanted a whole number, at least 1, got 0"),
    (lambda: Annealing(cold=0.0), "cold: wanted a positive temperature, got 0.0"),
    (lambda: Annealing(hot=-1.0), "hot: wanted a positive temperature, got -1.0"),
    (lambda: Annealing(hot=0.05), "hot: wanted a temperature of at least cold = 0.1, got 0.05"),
    (lambda: Tempering(temperatures=1), "temperatures: wanted a whole number, at least 2, got 1"),
    (lambda: Tempering(hot=0.1, cold=0.1), "cold, hot: wanted 0 < cold < hot, got 0.1 and 0.1"),
    (lambda: IsingModel.from_bqm({"a": 1.0}), "bqm: wanted a dimod.BinaryQuadraticModel, got dict"),
]


@pytest.mark.parametrize(("make", "words"), WRONG)
def test_what_makes_no_model_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_cost_that_is_not_quadratic_is_no_quadratic_model():
    net = IsingModel.from_edges([(0, 1), (1, 2)], coupling=1.0, outputs=[0, 1, 2])
    quartic = Nudge(lambda o, y: jnp.sum(o - y) ** 3, jnp.zeros(3), 1.0)
    with pytest.raises(ValueError, match="nudge: wanted a cost that is at most quadratic in the output spins"):
        net.to_bqm(None, quartic)
    net.to_bqm(None, Nudge(quartic.cost, quartic.target, 1.0, about=jnp.ones(3)))


def test_a_rule_for_smooth_systems_has_nothing_to_say_about_spins():
    """The update of small nudges is zero: no spin flips."""
    tiny = EquilibriumPropagation(1e-6)(NET, X[None], Y[None])
    assert all(float(jnp.max(jnp.abs(leaf))) == 0 for leaf in jax.tree.leaves(tiny.gradient))
