"""Free and nudged phases by two solvers, against relaxations that are given each solver by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import EquilibriumPropagation, basin_jumps
from substrates import ByPhase, HopfieldNetwork, Nudge, Pin, Status
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.solvers import batching
from substrates.substrate import NudgeRefusedError, Solver, SquaredError, relax_batch

LONG, SHORT = BlockDescent(sweeps=7), BlockDescent(sweeps=2)
NET = HopfieldNetwork.layered((4, 6, 5, 3), key=jax.random.key(0), gain=1.5)
X = jax.random.uniform(jax.random.key(1), (5, 4))
Y = jax.nn.one_hot(jnp.arange(5) % 3, 3)
BOTH = replace(NET, solver=ByPhase(LONG, SHORT))


def by_hand(beta):
    free = relax_batch(replace(NET, solver=LONG), X)
    return free, relax_batch(replace(NET, solver=SHORT), X, Nudge(SquaredError(), Y, beta), free.state)


def same(found, wanted):
    for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(wanted.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(found.steps, wanted.steps)
    assert jnp.all(found.status == wanted.status)


@pytest.mark.parametrize("worth", [0, np.inf], ids=["a copy for each phase", "rounds of one loop"])
def test_rules_settle_each_phase_by_its_solver(worth, monkeypatch):
    monkeypatch.setattr(batching, "WORTH_A_COPY", worth)
    jax.clear_caches()
    found = EquilibriumPropagation(0.4)(BOTH, X, Y)
    for phase, wanted in zip(found.equilibria, (by_hand(0.4)[0], by_hand(0.4)[1], by_hand(-0.4)[1]), strict=True):
        same(phase, wanted)
    assert {int(n) for n in found.equilibria[0].steps} == {7} != {int(n) for n in found.equilibria[1].steps}


def test_a_nudge_of_no_strength_is_a_free_phase_and_each_example_may_have_its_own():
    same(relax_batch(BOTH, X, Nudge(SquaredError(), Y, 0.0)), by_hand(0.0)[0])
    strengths = jnp.array([0.0, 0.4, 0.0, 0.4, 0.4])
    found = relax_batch(BOTH, X, Nudge(SquaredError(), Y, strengths), by_hand(0.4)[0].state)
    np.testing.assert_array_equal(found.steps, [7, 2, 7, 2, 2])


def test_held_outputs_are_a_nudged_phase():
    start = NET.initial_state(X[0])
    found = BOTH.relax(X[0], Pin(Y[0]), start)
    wanted = NET.relax(X[0], Pin(Y[0]), start, solver=SHORT)
    assert int(found.steps) == 2
    np.testing.assert_array_equal(found.state[0], wanted.state[0])


class Unpinned(BlockDescent):
    pins = False


def test_pins_are_refused_by_the_solver_of_nudged_phases():
    with pytest.raises(NudgeRefusedError, match="Pin"):
        replace(NET, solver=ByPhase(LONG, Unpinned(sweeps=2))).relax(X[0], Pin(Y[0]))
    assert replace(NET, solver=ByPhase(Unpinned(sweeps=2), LONG)).relax(X[0], Pin(Y[0])).usable


def test_what_both_settle_is_what_one_settles():
    settled = replace(NET, solver=ByPhase(BlockDescent(), BlockDescent(max_sweeps=500)))
    one, two = (EquilibriumPropagation(0.1)(net, X, Y) for net in (NET, settled))
    for a, b in zip(jax.tree.leaves(one.gradient), jax.tree.leaves(two.gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert not basin_jumps(settled, X, two.equilibria[0], two.equilibria[1]).any()


def test_it_is_limited_and_rounded_in_both_phases():
    solver = ByPhase(BlockDescent(), BlockDescent()).limited(3)
    free = NET.relax(X[0], solver=solver)
    nudged = NET.relax(X[0], Nudge(SquaredError(), Y[0], 0.3), solver=solver)
    assert int(free.steps) == int(nudged.steps) == 3
    assert free.status == nudged.status == Status.truncated
    rounded = ByPhase(LONG, SHORT).in_bfloat16()
    assert rounded.free.mixed
    assert rounded.nudged.mixed
    with pytest.raises(TypeError, match="limited"):
        ByPhase(ByPhase(LONG, SHORT), Countless()).limited(3)


class Countless(Solver):
    """It does not count its steps."""

    def __call__(self, substrate, x, nudge, start, key):
        return BlockDescent()(substrate, x, nudge, start, key)


@pytest.mark.parametrize("given", [(LONG, 2), ("fast", SHORT)])
def test_what_is_no_solver_is_refused(given):
    with pytest.raises(TypeError, match=r"(free|nudged): wanted a Solver"):
        ByPhase(*given)
