"""Every proof verifies, every planted fault breaks a step, every line can be typeset."""

import dataclasses
import subprocess
import sys

import pytest
from matplotlib.mathtext import MathTextParser
from sympy import Function, Matrix, Symbol, cos, diff, erf, exp, oo, sin, sqrt, symbols

from theory_checks.proofs import PROOFS, Step, prove
from theory_checks.proofs.algebra import (
    Branch,
    NudgedSystem,
    coefficient,
    curl,
    differ_at_a_random_point,
    gaussian_mean,
    vanishing,
)
from theory_checks.proofs.proof import provable
from theory_checks.theorems import find

TWINS = [pytest.param(name, fault, id=f"{name} with {fault}") for name in PROOFS for fault in PROOFS[name].faults]
x, y = symbols("x y", real=True)


@pytest.mark.parametrize("name", PROOFS)
def test_every_proof_verifies(name):
    verification = prove(name).verify()
    assert verification, f"\n{verification}"
    assert not verification.failed


@pytest.mark.parametrize(("name", "fault"), TWINS)
def test_every_fault_breaks_a_step(name, fault):
    proof = prove(name, fault)
    verification = proof.verify()
    assert not verification
    assert verification.failed
    assert proof.fault == PROOFS[name].faults[fault]


@pytest.mark.parametrize("name", PROOFS)
def test_every_theorem_says_what_whence_and_how_it_breaks(name):
    proof = PROOFS[name]
    assert proof.theorem is find(name)
    assert proof.faults
    assert proof.scope.count("$") % 2 == 0
    assert proof.theorem.statement.endswith(".")


@pytest.mark.parametrize("name", PROOFS)
def test_every_line_can_be_typeset(name):
    parser, proof = MathTextParser("path"), prove(name)
    said = (proof.theorem.statement + proof.scope + "".join(proof.theorem.assumptions)).split("$")[1::2]
    for formula in said + [step.name for step in proof.steps if step.name]:
        parser.parse(f"${formula}$")
    for step in proof.steps:
        line = step.latex()
        assert line.count("{") == line.count("}")
        if "\\begin" not in line and len(line) < 400:  # matplotlib knows no matrices
            parser.parse(f"${line}$".replace("\\limits", ""))
    shown = dataclasses.replace(proof, steps=proof.steps[:1])._repr_markdown_()
    assert proof.theorem.statement in shown
    assert proof.theorem.source in shown
    assert proof.scope in shown
    assert f"$$ {proof.steps[0].latex()} $$" in shown
    assert "✓" in shown


def test_a_broken_twin_says_so_where_it_is_shown():
    shown = prove("homeostatic-loss", "coloured noise")
    assert "broken on purpose" in shown._repr_markdown_()
    assert "✗" in shown._repr_markdown_()
    assert "FAILS" in str(shown)


def test_unknown_names_and_faults_list_the_known_ones():
    with pytest.raises(ValueError, match="equilibrium-propagation, bias-orders"):
        prove("perpetual-motion")
    with pytest.raises(ValueError, match="gauge-symmetries is measured only"):
        prove("gauge-symmetries")
    with pytest.raises(ValueError, match="'no energy'"):
        prove("equilibrium-propagation", "no such fault")


def test_a_derivation_may_commit_only_faults_that_it_declares():
    @provable("bias-orders", faults={"declared": "a fault"})
    def careless(fault):
        yield Step("one is one", y if fault("undeclared") else x, x)

    with pytest.raises(KeyError, match="undeclared"):
        careless()


def test_no_steps_prove_nothing():
    @provable("bias-orders", faults={})
    def empty(fault):
        yield from ()

    assert not empty().verify()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (sin(x) ** 2 + cos(x) ** 2, 1 + 0 * x),
        ((x**2 - y**2) / (x - y), x + y),
        (exp(x) * exp(-x), x**0),
        (Matrix([[x * (y + 1), 0]]), Matrix([[x * y + x, 0]])),
        (Function("f")(x).diff(x) * 2, 2 * Function("f")(x).diff(x)),
    ],
)
def test_equal_expressions_are_found_equal(left, right):
    assert vanishing(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (x, y),
        (x + 1e-3, x),
        (Matrix([x, y]), Matrix([y, x])),
        (Matrix([x, y]), Matrix([[x, y]])),
        (Matrix([x]), x),
        (Function("f")(x), Function("f")(y)),
        (Function("f")(x).diff(x), Function("f")(x)),
        (Symbol("A", commutative=False) * Symbol("B", commutative=False),
         Symbol("B", commutative=False) * Symbol("A", commutative=False)),
        (x / 0, x / 0),
        (oo, oo),
    ],
)  # fmt: skip
def test_different_expressions_are_not(left, right):
    assert vanishing(left, right) is None


def test_a_random_point_never_accepts():
    """Where the functions of both sides agree to all digits at the point, the simplifiers must still decide."""
    tiny = 10**-40
    assert not differ_at_a_random_point(x, x + tiny)
    assert vanishing(x, x + tiny) is None
    assert not differ_at_a_random_point(erf(x), erf(x) + tiny)
    assert vanishing(erf(x), erf(x) + tiny) is None


def test_a_margin_must_be_seen_not_to_be_negative():
    positive = Symbol("p", positive=True)
    assert Step("a square is not negative", 0 * x, x**2, margin=x**2).check().holds
    assert not Step("an odd power may be", 0 * x, x**3, margin=x**3).check().holds
    assert not Step("another margin", 0 * x, x**2, margin=x**2 + positive).check().holds


def test_a_branch_moves_as_the_solved_one():
    """Oracle: x^2 = theta solved."""
    theta, s = symbols("theta s", positive=True)
    branch = Branch([s**2 - theta], [s])
    assert vanishing(branch.velocity(theta)[0].subs(s, sqrt(theta)), diff(sqrt(theta), theta))
    assert vanishing(branch.derivative(s**4 + theta, theta), 2 * theta + 1) is None
    assert vanishing(branch.derivative(s**4 + theta, theta).subs(s**2, theta), 2 * theta + 1)


def test_a_curl_makes_the_jacobian_asymmetric():
    system = NudgedSystem()
    twist = Symbol("a", real=True)
    jacobian = curl(system.branch, twist).jacobian
    assert vanishing(system.branch.jacobian, system.branch.jacobian.T)
    assert vanishing(jacobian - jacobian.T, 2 * twist * Matrix([[0, 1], [-1, 0]]))


def test_taylor_coefficients_and_means_of_noise():
    assert coefficient(exp(2 * x), x, 3) == diff(exp(2 * x), x, 3).subs(x, 0) / 6
    assert gaussian_mean(x**6 + 3 * x**2 * y**2 + x * y + 1, (x, y)) == 15 + 3 + 1


def test_importing_the_checks_does_not_load_sympy():
    program = "import sys, theory_checks; print('sympy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
