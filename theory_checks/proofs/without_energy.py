"""Proofs about systems whose force has no energy, or whose energy is not at its minimum."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Iterator

from sympy import Function, Integer, Matrix, Symbol, diff, symbols

from theory_checks.proofs.algebra import Branch, NudgedSystem, curl, gaussian_mean
from theory_checks.proofs.proof import Planted, Step, provable

J, J_TRANSPOSED = Symbol("J", commutative=False), Symbol(r"{J^T}", commutative=False)


class ForcedSystem:
    """0 = mu(theta, s) - beta dC/ds with a general force mu of two variables."""

    def __init__(self) -> None:
        self.theta, self.beta = symbols("theta beta", real=True)
        self.state = symbols("s_1 s_2", real=True)
        self.force = [Function(f"mu_{i}", real=True)(self.theta, *self.state) for i in (1, 2)]
        self.cost = Function("C", real=True)(*self.state)
        self.slope = Matrix([diff(self.cost, s) for s in self.state])
        self.grip = Matrix([diff(f, self.theta) for f in self.force])
        self.jacobian = Matrix(self.force).jacobian(self.state)
        self.inverse = self.jacobian.inv("ADJ")

    def branch(self, extra: Matrix) -> Branch:
        return Branch(Matrix(self.force) - self.beta * self.slope + extra, self.state)


@provable(
    "vector-field-bias",
    faults={
        "symmetric part": "the symmetric part of the Jacobian in place of the antisymmetric one",
        "half": "the antisymmetric part once and not twice",
    },
)
def vector_field_bias(fault: Planted) -> Iterator[Step]:
    system = ForcedSystem()
    free = {system.beta: 0}
    branch = system.branch(Matrix([0, 0]))
    sign, factor = (1 if fault("symmetric part") else -1), (1 if fault("half") else 2)
    estimate = -(system.grip.T * branch.velocity(system.beta))[0].subs(free)
    exact = branch.derivative(system.cost, system.theta).subs(free)
    yield Step(
        "The gradient holds the transposed inverse of the Jacobian.",
        exact,
        -(system.grip.T * system.inverse.T * system.slope)[0],
        name=r"\frac{dL}{d\theta}",
    )
    yield Step(
        "The response to the nudge holds the inverse.",
        estimate,
        -(system.grip.T * system.inverse * system.slope)[0],
        name=r"g_{VF}",
    )
    part = (system.jacobian + sign * system.jacobian.T) / 2
    yield Step(
        "So what they differ by is linear in the antisymmetric part.",
        exact - estimate,
        -factor * (system.grip.T * system.inverse.T * part * system.inverse * system.slope)[0],
        name=r"\frac{dL}{d\theta} - g_{VF}",
    )
    any_part = (J + sign * J_TRANSPOSED) / 2
    yield Step(
        "Of any number of variables.",
        J_TRANSPOSED**-1 - J**-1,
        J_TRANSPOSED**-1 * (factor * any_part) * J**-1,
    )


@provable(
    "adjoint-repair",
    faults={
        "half": "the antisymmetric part added once and not twice",
        "the wrong way": "the term added with the other sign",
    },
)
def adjoint_repair(fault: Planted) -> Iterator[Step]:
    system = ForcedSystem()
    rest = symbols("s^0_1 s^0_2", real=True)
    at_rest = dict(zip(system.state, rest, strict=True))
    back = dict(zip(rest, system.state, strict=True))
    factor = -2 if fault("the wrong way") else 1 if fault("half") else 2
    twist = factor * (system.jacobian - system.jacobian.T).xreplace(at_rest) / 2
    added = -twist * (Matrix(system.state) - Matrix(rest))
    yield Step("The added term does nothing at the free state.", added.xreplace(back), Matrix([0, 0]))
    branch = system.branch(added)
    free = lambda expression: expression.subs(system.beta, 0).xreplace(back)
    yield Step(
        "Around it the force has the transposed Jacobian.",
        branch.jacobian.subs(system.beta, 0).xreplace(back),
        system.jacobian.T,
        name=r"J - 2A",
    )
    yield Step(
        "So the response is the adjoint one.",
        free(branch.velocity(system.beta)),
        system.inverse.T * system.slope,
        name=r"\frac{ds_\beta}{d\beta}",
    )
    yield Step(
        "And the estimate the gradient.",
        -(system.grip.T * free(branch.velocity(system.beta)))[0],
        system.branch(Matrix([0, 0])).derivative(system.cost, system.theta).subs(system.beta, 0),
        name="g",
    )
    yield Step("Of any number of variables.", J - factor * (J - J_TRANSPOSED) / 2, J_TRANSPOSED, name="J - 2A")


@provable(
    "homeostatic-loss",
    faults={
        "J J' for J J": "the square of the Jacobian taken with a transpose",
        "coloured noise": "one component of the noise of another variance",
    },
)
def homeostatic_loss(fault: Planted) -> Iterator[Step]:
    noise = symbols("epsilon_1:4", real=True)
    matrix = Matrix(3, 3, lambda i, j: Symbol(f"J_{i + 1}{j + 1}", real=True))
    seen = Matrix(noise)
    if fault("coloured noise"):
        seen[0] *= Symbol("sigma", positive=True)
    square = matrix * (matrix.T if fault("J J' for J J") else matrix)
    length = gaussian_mean(((matrix * seen).T * matrix * seen)[0], noise)
    form = gaussian_mean((seen.T * square * seen)[0], noise)
    yield Step("The mean square of J eps is the squared norm of J.", length, sum(e**2 for e in matrix),
               name=r"E|J\epsilon|^2")  # fmt: skip
    yield Step("The mean of the form is the trace of J J.", form, (matrix * matrix).trace(),
               name=r"E\,\epsilon'J^2\epsilon")  # fmt: skip
    twisted = (matrix - matrix.T) / 2
    yield Step("Half the squared norm of J - J'.", length - form, sum(e**2 for e in matrix - matrix.T) / Integer(2))
    yield Step("Twice that of A: zero if and only if J is symmetric.", length - form, 2 * sum(e**2 for e in twisted))


@provable(
    "skew-gradient",
    faults={
        "nudge outside": "the nudge pulls on the state and not through Phi",
        "no potential": "a force with a curl behind Q",
    },
)
def skew_gradient(fault: Planted) -> Iterator[Step]:
    system = NudgedSystem()
    signs = Matrix.diag(1, -1)
    slope = Matrix([diff(system.energy, s) for s in system.state])
    inside = Matrix.eye(2) if fault("nudge outside") else signs
    flow = -signs * slope - system.beta * inside * system.cost_gradient
    branch = Branch(flow, system.state)
    if fault("no potential"):
        branch = curl(branch, Symbol("a", real=True))
    yield Step(
        "Q drops out of the response: it is the one of the potential.",
        branch.velocity(system.beta),
        system.branch.velocity(system.beta),
        name=r"\frac{ds_\beta}{d\beta}",
    )
    yield Step(
        "The gradient of the cost is the response of the reading.",
        branch.derivative(system.cost, system.theta),
        branch.derivative(diff(system.energy, system.theta), system.beta),
        name=r"\frac{dL}{d\theta}",
    )
    a, b, d = symbols("a b d", positive=True)
    hessian = Matrix([[a, b], [b, d if fault("no potential") else -d]])
    jacobian = -signs * hessian
    yield Step("An activator and an inhibitor: Phi is at a saddle.", hessian.det(), Integer(0), margin=a * d + b**2,
               name=r"\det H")  # fmt: skip
    yield Step("Yet the flow is stable: its trace is negative,", jacobian.trace(), Integer(0), margin=a + d,
               name=r"\mathrm{tr}(-QH)")  # fmt: skip
    yield Step("and its determinant positive.", Integer(0), jacobian.det(), margin=a * d + b**2)
    slope_1, slope_2 = symbols("c_1 c_2", real=True)
    push = Matrix([slope_1, slope_2])
    fall = -(push.T * hessian.inv("ADJ") * push)[0]
    yield Step(
        "A cost felt by the activator falls with the nudge,",
        fall.subs(slope_2, 0),
        Integer(0),
        margin=d * slope_1**2 / (a * d + b**2),
        name=r"\frac{dC}{d\beta}",
    )
    yield Step(
        "one felt by the inhibitor grows: the bounds of a minimum are lost.",
        Integer(0),
        fall.subs(slope_1, 0),
        margin=a * slope_2**2 / (a * d + b**2),
    )
