"""The theorems of learning hold where their assumptions do, fail on systems that only pretend to, and refuse others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_system import SYSTEMS as EVERY
from every_system import spins

from learning import SquaredError
from learning.homeostasis import homeostatic_loss
from learning.homeostat import FixedKnobs, IntegralControl
from substrates import (
    AdjointResponse,
    HopfieldNetwork,
    IsingModel,
    Nudge,
    RecurrentNetwork,
    ResistorNetwork,
    Status,
    Substrate,
)
from substrates.readout import LinearReadout
from substrates.solvers.generic import Newton
from substrates.wrapper import Wrapper
from theory_checks.entrance import case_for
from theory_checks.theorems import ALL, Finding, NotApplicableError, find, without_energy
from theory_checks.theorems.suitable import order_of

KEY = jax.random.key(0)


class Springs(Substrate):
    """A convex chain of hardening springs, hung between an input and the ground."""

    stiffness: jax.Array
    hardness: jax.Array

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2) + 0.25 * jnp.sum(self.hardness * state**4)

    def initial_state(self, x):
        return jnp.full(3, 0.1, x.dtype)

    def read(self, state, x):
        return state[1:]


class Turned(Springs):
    """Springs with a force that goes round, of which their energy knows nothing."""

    solver = Newton()

    def force(self, state, x):
        turned = 0.5 * (jnp.roll(state, 1) - jnp.roll(state, -1))
        return -jax.grad(self.energy)(state, x) + turned


class Units(Substrate):
    """Three units, each pulled towards what it feels, by weights that are not symmetric: a force and no energy."""

    weight: jax.Array

    def force(self, state, x):
        return jnp.tanh(self.weight @ state + x) - state

    def initial_state(self, x):
        return jnp.zeros(3, x.dtype)

    def read(self, state, x):
        return state[1:]


class Doubled(Wrapper):
    """Whatever is measured reads twice as much."""

    inner: Substrate

    def measure(self, states, xs, nudges=None):
        return self._twice(self.inner.measure(*self.inside((states, xs, nudges))))

    def measure_from(self, free, states, xs, nudges=None):
        return self._twice(self.inner.measure_from(*self.inside((free, states, xs, nudges))))

    def contrast(self, plus, minus, xs, nudges_plus=None, nudges_minus=None):
        return self._twice(self.inner.contrast(*self.inside((plus, minus, xs, nudges_plus, nudges_minus))))

    def _twice(self, measured):
        return self.outside(jax.tree.map(lambda leaf: 2 * leaf, measured))


class Pushed(Wrapper):
    """A nudge pushes the outputs away."""

    inner: Substrate

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        if isinstance(nudge, Nudge):
            nudge = Nudge(nudge.cost, nudge.target, -nudge.beta, nudge.about)
        return self.inner.relax(x, nudge, start, key=key, solver=solver)


class Leaking(Wrapper):
    """Every meter reads a little of the last variable."""

    inner: Substrate

    def contrast(self, plus, minus, xs, nudges_plus=None, nudges_minus=None):
        found = self.inner.contrast(*self.inside((plus, minus, xs, nudges_plus, nudges_minus)))
        return self.outside(jax.tree.map(lambda leaf: leaf + 0.1 * jnp.mean(plus[:, 2] - minus[:, 2]), found))


class Rationed(Wrapper):
    """What is measured is divided by the sum of the stiffnesses."""

    inner: Substrate

    def contrast(self, plus, minus, xs, nudges_plus=None, nudges_minus=None):
        found = self.inner.contrast(*self.inside((plus, minus, xs, nudges_plus, nudges_minus)))
        return self.outside(jax.tree.map(lambda leaf: leaf / jnp.sum(self.inner.stiffness), found))


class OnePart(Springs):
    """Every parameter scales the whole energy."""

    def energy(self, state, x):
        return jnp.sum(self.stiffness + self.hardness) * jnp.sum((state - x) ** 2)


class Restless(Springs):
    """Springs that never come to rest."""

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        found = Substrate.relax(self, x, nudge, start, key=key, solver=solver)
        return eqx.tree_at(
            lambda e: e.status, found, Status.where(jnp.asarray(True), Status.out_of_steps, found.status)
        )


class ProductCost(eqx.Module):
    """A cost that couples outputs."""

    def __call__(self, output, target):
        return 0.3 * (output[0] * output[1] - target[1]) ** 2 + jnp.exp(0.5 * output[0] * target[0])


def ensemble(seed, temperature):
    draw = np.random.default_rng(seed)
    edges = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
    model = IsingModel.from_edges(
        edges, 4, coupling=0.6 * draw.normal(size=5), field=0.4 * draw.normal(size=4), inputs=[0], outputs=[2, 3]
    )
    return model.ensemble(temperature)


X, Y = jnp.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.7]]), jnp.array([[0.3, 0.9], [0.0, 0.5]])
CIRCUIT = ResistorNetwork.from_edges(
    [(0, 2), (0, 3), (1, 2), (1, 4), (2, 3), (3, 4)],
    n=5,
    inputs=[0, 1],
    outputs=[3, 4],
    conductance=jnp.array([1.0, 0.5, 0.8, 1.2, 0.4, 0.9]),
)
HARD = jnp.array([1.0, 2.0, 1.5]), jnp.array([1.0, 0.5, 0.8])
SPRINGS = Springs(*HARD)
UNITS = Units(jnp.array([[0.2, 0.5, -0.4], [-0.3, 0.1, 0.6], [0.7, -0.2, 0.3]]))
RECURRENT = RecurrentNetwork.layered((3, 4, 2), key=KEY, gain=1.5, activation="tanh")
WITH_ENERGY = {"circuit": (CIRCUIT, X[:, :2], Y), "springs": (SPRINGS, X[:, :1], Y)}
WITHOUT = {"units": (UNITS, X, Y), "recurrent": (RECURRENT, X, Y)}
WARM = {
    "cold": (ensemble(1, 0.8), X[:, :1], Y, {}),
    "warm": (ensemble(2, 2.0), X[:, :1], Y, {"cost": ProductCost(), "temperature": 2.0}),
}
FORCES, ENSEMBLES = ("vector-field-bias", "adjoint-repair"), ("stochastic",)
SPINS = jnp.array([[1.0], [-1.0]])
SADDLE = EVERY["activators and inhibitors"]()

HOLDING = [
    *((t.name, s) for t in ALL if t.universal and t.name not in FORCES + ENSEMBLES for s in WITH_ENERGY),
    *((name, s) for name in (*FORCES, "homeostatic-loss", "holomorphic") for s in WITHOUT),
    *((name, s) for name in ENSEMBLES for s in WARM),
]


def system(name):
    return (*{**WITH_ENERGY, **WITHOUT, **WARM}[name], {})[:4]


@pytest.mark.parametrize(("name", "where"), HOLDING)
def test_it_holds(name, where):
    *given, options = system(where)
    findings = find(name).check(*given, **options)
    assert findings
    for finding in findings:
        assert finding.holds, str(finding)
        assert np.shape(finding.measured) == np.shape(finding.predicted)
        assert str(finding).startswith("holds: ")
    # not because all is nothing
    if (name, where) not in {("homeostatic-loss", s) for s in WITH_ENERGY}:
        assert max(np.max(np.abs(finding.measured)) for finding in findings) > 1e-3


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("equilibrium-propagation", (SADDLE, X[:, :2], Y), {}),
        ("sandwich-bounds", (spins(), SPINS, -SPINS), {}),
        ("contrastive-objective", (spins(), SPINS, -SPINS), {}),
        ("parameter-locality", (spins(), SPINS, -SPINS), {}),
        ("holomorphic", WITH_ENERGY["springs"], {"points": (1, 2)}),
    ],
)
def test_it_holds_elsewhere_too(name, given, options):
    """At saddles, of discrete states, at real nudges."""
    for finding in find(name).check(*given, **options):
        assert finding.holds, str(finding)


def twin(make, name="springs"):
    inner, x, y = {**WITH_ENERGY, **WITHOUT}[name]
    return make(inner), x, y


TURNED = Turned(*HARD), X[:, :1], Y
BROKEN = [
    *(
        (name, twin(Doubled), {})
        for name in (
            "equilibrium-propagation",
            "bias-orders",
            "finite-beta-surrogate",
            "temporal-identity",
            "gradient-descending-updates",
            "continual",
            "holomorphic",
            "lock-in",
            "agnostic-step",
            "agnostic-metric",
            "contrastive-objective",
            "coupled-objective",
            "parameter-locality",
        )
    ),
    *((name, TURNED, {}) for name in ("equilibrium-propagation", "temporal-identity", "gradient-descending-updates")),
    *((name, twin(Pushed), {}) for name in ("equilibrium-propagation", "sandwich-bounds", "finite-beta-surrogate")),
    *((name, twin(Doubled, "units"), {}) for name in ("vector-field-bias", "adjoint-repair")),
    ("stochastic", (Doubled(ensemble(1, 0.8)), X[:, :1], Y), {"temperature": 0.8}),
    ("stochastic", (ensemble(1, 0.8), X[:, :1], Y), {"temperature": 1.0}),
    ("continual", WITH_ENERGY["springs"], {"ratio": 1.0}),
    ("agnostic-step", WITH_ENERGY["circuit"], {"homeostat": FixedKnobs()}),
    ("agnostic-metric", WITH_ENERGY["circuit"], {"homeostat": FixedKnobs()}),
]


@pytest.mark.parametrize(("name", "given", "options"), BROKEN)
def test_it_fails_on_a_system_that_breaks_it(name, given, options):
    findings = find(name).check(*given, **options)
    assert not all(finding.holds for finding in findings), [str(finding) for finding in findings]
    assert any(str(finding).startswith("FAILS: ") for finding in findings)


@pytest.mark.parametrize(("make", "words"), [(Leaking, "as other variables move"), (Rationed, "of parts apart")])
def test_a_meter_that_reads_elsewhere_is_no_local_one(make, words):
    (told,) = (one for one in find("parameter-locality").check(*twin(make)) if words in one.compared)
    assert not told.holds
    assert told.error > 1e-3


def test_a_step_from_knobs_that_hold_nothing_may_go_up():
    """The forces that nobody balances move the parameters wherever they push."""
    given = CIRCUIT, X[:, :2], jnp.array([[0.9, 0.9], [0.9, 0.9]])
    findings = find("agnostic-lyapunov").check(*given, homeostat=FixedKnobs())
    assert not all(finding.holds for finding in findings), [str(finding) for finding in findings]
    assert all(finding.holds for finding in find("agnostic-lyapunov").check(*given))


def test_the_read_back_alone_holds_parameters_well_enough():
    findings = find("agnostic-lyapunov").check(*WITH_ENERGY["circuit"], homeostat=IntegralControl(relative=1e-9))
    assert all(finding.holds for finding in findings)


@pytest.mark.parametrize(("part", "wrong"), [(-1.0, "half"), (2.0, "sign")])
def test_a_repair_of_the_wrong_size_or_sign_is_none(monkeypatch, part, wrong):
    class Repaired(AdjointResponse):
        """mu(s) + part A (s - s_0) instead of mu(s) - 2 A (s - s_0)."""

        def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
            free = self.inner.relax(x, None, start, key=key, solver=solver)
            if not isinstance(nudge, Nudge):
                return free
            return Partly(self.inner, jax.lax.stop_gradient(free.state), part).relax(x, nudge, free.state, key=key)

    monkeypatch.setattr(without_energy, "AdjointResponse", Repaired)
    assert not all(finding.holds for finding in find("adjoint-repair").check(*WITHOUT["units"]))


class Partly(Substrate):
    inner: Substrate
    about: jax.Array
    part: float = eqx.field(static=True)

    def force(self, state, x):
        jacobian = jax.jacfwd(lambda s: self.inner.force(s, x))(self.about)
        odd = (jacobian - jacobian.T) / 2
        return self.inner.force(state, x) + self.part * odd @ (state - self.about)

    def initial_state(self, x):
        return self.about

    def read(self, state, x):
        return self.inner.read(state, x)


def test_a_loss_of_half_the_size_is_told(monkeypatch):
    half = lambda *given, **options: homeostatic_loss(*given, **options) / 2
    monkeypatch.setattr(without_energy, "homeostatic_loss", half)
    assert not any(finding.holds for finding in find("homeostatic-loss").check(*WITHOUT["units"]))


# refusals

HOPFIELD = HopfieldNetwork.layered((3, 4, 2), key=KEY)
READ = LinearReadout(SPRINGS, jnp.array([[0.5, 1.0], [1.0, -0.5]]))
FLOORED = eqx.tree_at(lambda net: net.conductance, CIRCUIT, CIRCUIT.conductance.at[2].set(CIRCUIT.floor))


@pytest.mark.parametrize(
    ("name", "given", "options", "reason"),
    [
        *(
            (name, WITHOUT["units"], {}, "Units: the theorem speaks of systems with an energy")
            for name in (t.name for t in ALL if t.universal)
            if name not in (*FORCES, *ENSEMBLES, "homeostatic-loss", "holomorphic")
        ),
        *((name, WITH_ENERGY["circuit"], {}, "systems without an energy, and this one has one") for name in FORCES),
        *(
            (name, (spins(), SPINS, -SPINS), {}, "states are discrete")
            for name in ("equilibrium-propagation", "gradient-descending-updates", "agnostic-step", "homeostatic-loss")
        ),
        ("equilibrium-propagation", WARM["cold"][:3], {}, "its state is a distribution"),
        (
            "stochastic",
            WITH_ENERGY["circuit"],
            {},
            "ResistorNetwork: the theorem speaks of a state that is a distribution",
        ),
        ("parameter-locality", (OnePart(*HARD), X[:, :1], Y), {}, "OnePart: every parameter acts on every variable"),
        ("lock-in", (SADDLE, X[:, :2], Y), {}, "its free equilibrium is a saddle"),
        *((name, (HOPFIELD, X, Y), {}, "no analytic continuation: ") for name in ("holomorphic", "lock-in")),
        ("sandwich-bounds", (SADDLE, X[:, :2], Y), {}, "its free equilibrium is a saddle"),
        ("temporal-identity", (SADDLE, X[:, :2], Y), {}, "a saddle, from which a flow"),
        ("contrastive-objective", (READ, X[:, :1], Y), {}, "shows its outputs through trained parameters"),
        ("agnostic-step", (FLOORED, X[:, :2], Y), {}, "a parameter stands at its physical limit"),
        ("continual", (FLOORED, X[:, :2], Y), {}, "a parameter stands at its physical limit"),
        ("bias-orders", (Restless(*HARD), X[:, :1], Y), {}, "2 of 2 free phases did not come to rest"),
        ("agnostic-lyapunov", WITH_ENERGY["springs"], {"epsilon": 1e4}, "holds parameters at no minimum"),
    ],
)
def test_it_is_refused_where_its_assumptions_fail(name, given, options, reason):
    with pytest.raises(NotApplicableError, match=reason):
        find(name).check(*given, **options)


def test_a_zero_gradient_is_refused():
    shown = jax.vmap(CIRCUIT.read)(jax.vmap(lambda x: CIRCUIT.relax(x).state)(X[:, :2]), X[:, :2])
    with pytest.raises(NotApplicableError, match="the gradient is zero"):
        find("bias-orders").check(CIRCUIT, X[:, :2], shown, cost=lambda output, target: 0.0 * jnp.sum(output))


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("equilibrium-propagation", {"substrate": "circuit"}, TypeError, "substrate: wanted a Substrate, got str"),
        ("equilibrium-propagation", {"y": Y[:1]}, ValueError, "x, y: wanted the same leading batch axis"),
        ("equilibrium-propagation", {"y": Y[:, :1]}, ValueError, "y: wanted shape"),
        ("temporal-identity", {"steps": 0}, ValueError, "steps: wanted a whole number, at least 1"),
        ("gradient-descending-updates", {"steps": 0}, ValueError, "steps: wanted a whole number"),
        ("continual", {"ratio": 0.0}, ValueError, "ratio: wanted a positive number"),
        ("homeostatic-loss", {"probes": 1}, ValueError, "probes: wanted a whole number, at least 2"),
        ("holomorphic", {"points": (0,)}, ValueError, "points: wanted a whole number, at least 1"),
        ("lock-in", {"period": 2}, ValueError, "period: wanted a whole number, at least 3"),
        ("agnostic-step", {"epsilon": -1.0}, ValueError, "epsilon: wanted a positive number"),
    ],
)
def test_bad_input_is_told(name, change, error, message):
    given = dict(zip(("substrate", "x", "y"), WITH_ENERGY["circuit"], strict=True))
    with pytest.raises(error, match=message) as raised:
        find(name).check(**{**given, **change})
    assert not isinstance(raised.value, NotApplicableError)


def test_an_ensemble_needs_its_temperature():
    with pytest.raises(ValueError, match="temperature: wanted a positive number, for Doubled has none"):
        find("stochastic").check(Doubled(ensemble(1, 0.8)), X[:, :1], Y)


# orders


def test_orders_are_fitted_where_they_are_clear_of_the_noise():
    case = case_for(*WITH_ENERGY["circuit"])
    strengths = np.array([0.4 / 2**k for k in range(13)])
    bias = lambda order: 0.3 * strengths**order * (1 + strengths) + 1e-13 / strengths
    for order in (1, 2, 3):
        found = order_of(case, "error", strengths, bias(order), order)
        assert found.holds, str(found)
        assert f"error: order {found.measured:.3f} +- " in str(found)
        assert not order_of(case, "error", strengths, bias(order), order + 1).holds
    for stays in (np.full(13, 0.5), bias(2) + 1e-4, bias(1) + 1.0):
        assert not order_of(case, "error", strengths, stays, 1).holds
    assert order_of(case, "error", strengths, np.full(13, 1e-9), 2).holds
    lost = order_of(case, "error", strengths, 1e-3 + 1e-2 * strengths + 1e-4 / strengths, 2)
    assert "what is estimated is not the gradient" in str(lost)
    assert not lost.holds
    with pytest.raises(NotApplicableError, match="too coarse to tell bias from noise; let relaxations"):
        order_of(case, "error", strengths, 1e-3 / strengths, 1)


def test_nan_never_holds():
    assert not Finding("nothing", 0.0, 0.0, float("nan"), 1.0).holds


def test_theorems_are_found_by_name():
    names = [theorem.name for theorem in ALL]
    assert len(set(names)) == len(names)
    assert find("bias-orders") in ALL
    with pytest.raises(KeyError, match=r"wanted one of equilibrium-propagation, .* got 'bias-order'"):
        find("bias-order")
    for theorem in ALL:
        assert theorem.statement.count("$") % 2 == 0
        assert theorem.assumptions
        assert theorem.source


def test_costs_other_than_the_default_are_taken():
    """One example, without a batch axis."""
    inner, x, y = WITH_ENERGY["circuit"]
    for cost in (SquaredError(), ProductCost()):
        assert all(finding.holds for finding in find("bias-orders").check(inner, x[0], y[0], cost=cost))
