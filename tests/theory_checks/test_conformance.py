"""The conformance kit: sound systems pass, and each planted error fails the law that it breaks."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import SquaredError
from substrates import Equilibrium, Status, Substrate, fixed
from substrates.substrate import parameter_dtype
from theory_checks import BrokenLawError, check_substrate, laws_of_equilibrium, laws_of_promises
from theory_checks.case import Case
from theory_checks.entrance import case_for
from theory_checks.laws_of_equilibrium import contrasts
from theory_checks.report import at_most


class Springs(Substrate):
    """A chain of springs on a soft ground, in three methods."""

    stiffness: jax.Array
    hardness: jax.Array

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2) + 0.25 * jnp.sum(self.hardness * state**4)

    def initial_state(self, x):
        return jnp.zeros(4)

    def read(self, state, x):
        return state[2:]


class Chain(Substrate):
    """The same chain with every override by hand, and a dial for each error that may be planted in it."""

    stiffness: jax.Array
    hardness: jax.Array
    force_factor: jax.Array = fixed(default_factory=lambda: jnp.ones(()))
    measure_factor: jax.Array = fixed(default_factory=lambda: jnp.ones(4))
    edge_count: jax.Array = fixed(default_factory=lambda: jnp.ones(4))
    twist: jax.Array = fixed(default_factory=lambda: jnp.zeros(()))
    nudge_factor: jax.Array = fixed(default_factory=lambda: jnp.ones(()))
    residual_factor: jax.Array = fixed(default_factory=lambda: jnp.ones(()))
    energy_offset: jax.Array = fixed(default_factory=lambda: jnp.zeros(()))
    floor_slip: jax.Array = fixed(default_factory=lambda: jnp.zeros(()))
    steps: jax.Array = fixed(default_factory=lambda: jnp.asarray(30))
    batch_sum: jax.Array = fixed(default_factory=lambda: jnp.zeros(()))

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        edges = 0.5 * jnp.sum(self.edge_count * self.stiffness * stretch**2)
        return edges + 0.25 * jnp.sum(self.hardness * state**4)

    def initial_state(self, x):
        return jnp.zeros(4)

    def read(self, state, x):
        return state[2:]

    def _pull_together(self, state, x):
        tension = self.stiffness * jnp.diff(jnp.concatenate([x, state]))
        along = jnp.append(tension[1:], 0) - tension
        return (
            along
            - self.hardness * state**3
            + self.twist * jnp.zeros_like(state).at[:2].set(jnp.stack([-state[1], state[0]]))
        )

    def force(self, state, x, nudge=None):
        force = self.force_factor * self._pull_together(state, x)
        return force if nudge is None else force.at[2:].add(nudge.pull(self.read(state, x)))

    def residual(self, state, x, nudge=None):
        return self.residual_factor * jnp.max(jnp.abs(self.total_force(state, x, nudge)))

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        def balance(state):
            force = self._pull_together(state, x)
            return force if nudge is None else force.at[2:].add(self.nudge_factor * nudge.pull(self.read(state, x)))

        newton = lambda _, s: s - jnp.linalg.solve(jax.jacfwd(balance)(s), balance(s))
        start = jnp.full(4, 0.3) if start is None else start
        state = jax.lax.fori_loop(0, self.steps, newton, start.astype(parameter_dtype(self)))
        energy = self.total_energy(state, x, nudge) + self.energy_offset
        return Equilibrium(state, energy, jnp.max(jnp.abs(balance(state))), self.steps, Status.converged)

    def measure(self, states, xs, nudges=None):
        tree = Substrate.measure(self, states, xs, nudges)
        factor = self.measure_factor * (1 + self.batch_sum * (states.shape[0] - 1))
        return eqx.tree_at(lambda t: t.stiffness, tree, tree.stiffness * factor)

    def contrast(self, plus, minus, xs, nudges_plus=None, nudges_minus=None):
        tree = Substrate.contrast(self, plus, minus, xs, nudges_plus, nudges_minus)
        return eqx.tree_at(lambda t: t.stiffness, tree, tree.stiffness * self.measure_factor)

    def constrained(self):
        return eqx.tree_at(lambda t: t.stiffness, self, jnp.maximum(self.stiffness, 0.1) + self.floor_slip)


class HastyChain(Chain):
    """Declares one Gauss point, too few where a parameter multiplies the fourth power of the state."""

    contrast_points = 1


class ProudChain(Chain):
    """Measures a constant that nothing may train."""

    def measure(self, states, xs, nudges=None):
        return eqx.tree_at(
            lambda t: t.twist, Chain.measure(self, states, xs, nudges), 1.0, is_leaf=lambda leaf: leaf is None
        )


class Neurons(Substrate):
    """A vector field without an energy, with couplings that are not symmetric."""

    coupling: jax.Array

    def force(self, state, x, nudge=None):
        return -state + jnp.tanh(self.coupling @ state + x)

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state[:2]


STIFFNESS, HARDNESS = jnp.array([1.0, 2.0, 3.0, 1.5]), jnp.array([1.0, 0.5, 0.8, 0.3])
X, Y = jnp.array([[0.3], [0.5], [-0.2]]), jnp.array([[1.0, 0.8], [-0.5, 0.4], [0.6, 0.9]])


def test_three_methods_are_enough_to_pass_every_law():
    report = check_substrate(Springs(STIFFNESS, HARDNESS), X, Y)
    assert report.passed, report
    assert 0.9 < report["EP one-sided: error ~ beta"].number < 1.1
    assert 1.9 < report["EP centred: error ~ beta^2"].number < 2.1
    assert report["EP -> exact gradient"].number < 1e-7


def test_overrides_that_are_right_pass_every_law():
    report = check_substrate(Chain(STIFFNESS, HARDNESS), X, Y)
    assert report.passed, report
    assert report["generic solver = own solver"].verdict == "holds"


PLANTED = {
    "sign of the force": ({"force_factor": -1.0}, {"force = -dE/dstate", "force = -dE/dstate, by differences"}),
    "factor 2 in a measurement": (
        {"measure_factor": 2.0 * jnp.ones(4)},
        {
            "measure = dF/dtheta",
            "measure = dF/dtheta, by differences",
            "EP -> exact gradient",
            "EP = gradient of its surrogate",
        },
    ),
    "sign of a measurement": (
        {"measure_factor": -jnp.ones(4)},
        {
            "measure = dF/dtheta",
            "measure = dF/dtheta, by differences",
            "EP -> exact gradient",
            "EP = gradient of its surrogate",
        },
    ),
    "an edge counted twice in the energy": (
        {"edge_count": jnp.array([1.0, 2.0, 1.0, 1.0])},
        {"free stationarity", "nudged stationarity", "force = -dE/dstate", "envelope: dFm/dbeta = C(s_beta)"},
    ),
    "an edge counted twice in a measurement": (
        {"measure_factor": jnp.array([1.0, 2.0, 1.0, 1.0])},
        {"measure = dF/dtheta", "measure = dF/dtheta, by differences"},
    ),
    "a solver that stops too early": ({"steps": 3}, {"free stationarity"}),
    "a force that no energy has": (
        {"twist": 0.5},
        {"reciprocity of the force", "force = -dE/dstate", "free stationarity"},
    ),
    "a nudge of the wrong sign": (
        {"nudge_factor": -1.0},
        {
            "nudged stationarity",
            "C(s_beta) never increases with beta",
            "EP -> exact gradient",
            "envelope: dFm/dbeta = C(s_beta)",
        },
    ),
    "a residual that flatters": ({"residual_factor": 1e-6}, {"residual measures equilibrium"}),
    "an energy that is not F": ({"energy_offset": 1e-6}, {"reported energy = F(state)"}),
    "constraints that creep": ({"floor_slip": 1e-3}, {"constrained() is a projection"}),
    "a sum over the batch": ({"batch_sum": 1.0}, {"batch = singles: measurements", "measure = dF/dtheta"}),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_fails_the_law_that_it_breaks(error):
    dials, laws = PLANTED[error]
    like = Chain(STIFFNESS, HARDNESS)
    arrays = {name: jnp.asarray(value, getattr(like, name).dtype) for name, value in dials.items()}
    report = check_substrate(Chain(STIFFNESS, HARDNESS, **arrays), X, Y)
    assert laws <= {law.name for law in report.failures}, report


def test_one_gauss_point_too_few_is_found():
    case = Case(HastyChain(STIFFNESS, HARDNESS), X, Y, SquaredError(), jax.random.key(0), 0.1)
    (law,) = contrasts(case)
    assert law.verdict == "fails", law
    assert "contrast_points = 1" in law.compared


def test_a_measured_constant_is_found():
    report = check_substrate(ProudChain(STIFFNESS, HARDNESS), X, Y)
    assert "gradients fit the parameters" in {law.name for law in report.failures}, report


@pytest.mark.slow
def test_a_system_without_an_energy_is_held_to_the_vector_field_formula():
    coupling = 0.4 * jax.random.normal(jax.random.key(1), (3, 3))
    report = check_substrate(Neurons(coupling), jnp.array([[0.3, -0.2, 0.5], [0.1, 0.6, -0.4]]), Y[:2])
    assert report.passed, report
    assert report["EP -> vector-field formula"].verdict == "holds"
    assert report["reciprocity of the force"].verdict == "does not apply"
    assert "differ by" in report["reciprocity of the force"].compared


@pytest.mark.slow
def test_float32_passes_with_the_bounds_of_float32():
    system = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, Chain(STIFFNESS, HARDNESS))
    report = check_substrate(system, X.astype(jnp.float32), Y.astype(jnp.float32))
    assert report.passed, report


@pytest.mark.slow
def test_one_example_is_a_batch_of_one():
    report = check_substrate(Chain(STIFFNESS, HARDNESS), X[0], Y[0])
    assert report.passed, report
    assert "1 examples" in report.system


def test_a_report_reads_as_a_table_and_raises_on_demand():
    report = check_substrate(Chain(STIFFNESS, HARDNESS, force_factor=-jnp.ones(())), X, Y)
    lines = str(report).splitlines()
    assert lines[0].startswith("Chain: 4 state variables, 2 outputs, 3 examples, float64")
    assert max(map(len, lines)) <= 140
    assert "<table>" in report._repr_html_()
    with pytest.raises(BrokenLawError, match="force = -dE/dstate"):
        report.raise_if_failed()
    with pytest.raises(KeyError, match="no law 'gravity'"):
        report["gravity"]


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="leading batch axis"):
        check_substrate(Chain(STIFFNESS, HARDNESS), X, Y[:2])


class GradientOfItsOwn(Springs):
    """Right, but its force knows no complex numbers."""

    def force(self, state, x):
        return -jax.grad(self.energy)(state, x)


class Walled(Springs):
    """Right, but states are clipped."""

    def bounds(self, x):
        return jnp.full(4, -jnp.inf), jnp.full(4, jnp.inf)


class Bent(Springs):
    """Its energy is smooth on the real axis and not analytic beside it."""

    def energy(self, state, x):
        return super().energy(state, x) + jnp.sum((jnp.abs(state) ** 3).astype(state.dtype))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GradientOfItsOwn, r"grad requires real-valued outputs.* Say holomorphic = False"),
        (Walled, r"bounds clip the states. Say holomorphic = False"),
        (Bent, r"derivatives along i v less i times those along v"),
    ],
)
def test_who_forgets_to_say_that_states_have_no_continuation_is_told(kind, said):
    net = kind(jnp.array([1.0, 2.0, 0.5, 1.5]), jnp.ones(4))
    report = check_substrate(net, jnp.array([[0.3], [-0.4]]), jnp.array([[0.5, 0.2], [0.1, -0.1]]))
    broken = [law for law in report.laws if law.verdict == "fails"]
    assert [law.name for law in broken] == ["holomorphic = said"]
    assert re.search(said, broken[0].compared)


class NoMeasure(Springs):
    """Its meters show no number."""

    def measure(self, states, xs, nudges=None):
        return jax.tree.map(lambda leaf: leaf * jnp.nan, super().measure(states, xs, nudges))


class Faint(Springs):
    """Right, of energies as small as those of molecules in joules."""

    def energy(self, state, x):
        return 1e-21 * super().energy(state, x)


def test_what_is_no_number_breaks_its_law():
    net = NoMeasure(jnp.array([1.0, 2.0, 0.5, 1.5]), jnp.ones(4))
    laws = laws_of_equilibrium.measurement(
        case_for(net, jnp.array([[0.3], [-0.4]]), jnp.array([[0.5, 0.2], [0.1, -0.1]]))
    )
    assert [law.verdict for law in laws] == ["fails", "fails"]
    assert all(np.isnan(law.number) for law in laws)


def test_a_bound_that_is_not_finite_bounds_nothing():
    assert at_most("a law", "a length", 0.0, np.inf).verdict == "fails"
    assert at_most("a law", "a length", 0.0, np.nan).verdict == "fails"
    assert at_most("a law", "a length", 0.0, 0.0).verdict == "holds"


def test_the_input_of_a_faint_system_acts():
    net = Faint(jnp.array([1.0, 2.0, 0.5, 1.5]), jnp.ones(4))
    case = case_for(net, jnp.array([[0.3], [-0.4]]), jnp.array([[0.5, 0.2], [0.1, -0.1]]), beta=1e-22)
    assert laws_of_promises.inputs(case)[0].verdict == "holds"
