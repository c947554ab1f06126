"""Proofs about quantum ground states: perturbation theory, free fermions, coupled oscillators and their limits."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import itertools
from collections.abc import Iterator

from sympy import (
    Derivative,
    Expr,
    I,
    Integer,
    Integral,
    Limit,
    Matrix,
    MatrixBase,
    Rational,
    Symbol,
    conjugate,
    cos,
    diff,
    exp,
    expand,
    eye,
    pi,
    prod,
    re,
    sin,
    sqrt,
    symbols,
)
from sympy.physics.quantum import TensorProduct

from theory_checks.proofs.algebra import Branch
from theory_checks.proofs.proof import Planted, Step, provable

X, Z = Matrix([[0, 1], [1, 0]]), Matrix([[1, 0], [0, -1]])
LEVEL = Symbol("E", real=True)


def hermitian(name: str, size: int) -> MatrixBase:
    """A general Hermitian matrix."""
    part = lambda kind, i, j: Symbol(f"{name}^{kind}_{i}{j}", real=True)
    above = lambda i, j: part("r", i, j) + I * part("i", i, j)
    diagonal = [Symbol(f"{name}_{i}{i}", real=True) for i in range(size)]
    entry = lambda i, j: diagonal[i] if i == j else above(i, j) if i < j else conjugate(above(j, i))
    return Matrix(size, size, entry)


@provable(
    "quantum",
    faults={
        "denominators turned": "the energies of the perturbed state subtracted the other way",
        "half": "the conjugate half of the response forgotten",
    },
)
def quantum(fault: Planted) -> Iterator[Step]:
    theta, beta = symbols("theta beta", real=True)
    factor, sign = (1 if fault("half") else 2), (-1 if fault("denominators turned") else 1)
    for size in (2, 3):
        levels = symbols(f"e_0:{size}", real=True)
        cost, operator = hermitian("C", size), hermitian("O", size)
        H = Matrix.diag(*levels) + theta * operator + beta * cost
        characteristic = (H - LEVEL * eye(size)).det(method="berkowitz")
        branch = Branch([characteristic], [LEVEL])
        at = {beta: 0, theta: 0, LEVEL: levels[0]}
        first = branch.derivative(LEVEL, beta)
        yield Step(
            f"{size} levels, from the characteristic equation: the ground energy rises with beta by the mean of C.",
            first.subs(at, simultaneous=True),
            cost[0, 0],
            name=r"\frac{dE_0}{d\beta}",
        )
        coupling = lambda n, cost=cost, operator=operator: factor * re(expand(operator[0, n] * cost[n, 0]))
        response = sum(coupling(n) / (sign * (levels[0] - levels[n])) for n in range(1, size))
        yield Step(
            "Its mixed second derivative, which is both the gradient of <C> and the response of <O>.",
            branch.derivative(branch.derivative(LEVEL, theta), beta).subs(at, simultaneous=True),
            response,
            name=r"\frac{\partial^2 E_0}{\partial\beta\,\partial\theta}",
        )
        state = Matrix([1, *(cost[n, 0] / (sign * (levels[0] - levels[n])) for n in range(1, size))])
        free = Matrix([1, *(0 for _ in range(size - 1))])
        moved = state - free
        yield Step(
            "The ground state moves so that it stays an eigenstate to first order in beta,",
            (Matrix.diag(*levels) - levels[0] * eye(size)) * moved,
            -(cost - cost[0, 0] * eye(size)) * free,
        )
        answer = (moved.H * operator * free)[0] + (free.H * operator * moved)[0]
        yield Step("and <O> with it, by the same sum.", answer, response, name=r"\frac{d\langle O\rangle}{d\beta}")
    b, h = symbols("b h", positive=True)
    ground = -sqrt(b**2 + h**2) * sign
    spin = Matrix([b + sqrt(b**2 + h**2), h])
    yield Step("A spin in a tilted field, H = -b Z - h X.", (-b * Z - h * X) * spin, ground * spin)
    shown = lambda operator: (spin.T * operator * spin)[0] / (spin.T * spin)[0]
    yield Step("Its mean Z, by the field's part in the energy.", Derivative(ground, b), -shown(Z))
    yield Step("Its mean X.", Derivative(ground, h), -shown(X))


def on_sites(operators: dict[int, MatrixBase], size: int) -> MatrixBase:
    """The product of operators on some sites of a chain of spins."""
    return TensorProduct(*(operators.get(site, eye(2)) for site in range(size)))


@provable(
    "free-fermions",
    faults={
        "longitudinal field": "a field along Z, which mixes even and odd numbers of fermions",
        "couplings halved": "each pair counted twice in the matrix of the fermions",
    },
)
def free_fermions(fault: Planted) -> Iterator[Step]:
    for size in (2, 3):
        h, J = symbols(f"h_1:{size + 1}", positive=True), symbols(f"J_1:{size}", positive=True)
        H = -sum((on_sites({i: X}, size) * field for i, field in enumerate(h)), 0 * on_sites({}, size))
        H -= sum((on_sites({i: Z, i + 1: Z}, size) * pair for i, pair in enumerate(J)), 0 * on_sites({}, size))
        if fault("longitudinal field"):
            H -= Symbol("b", positive=True) * on_sites({0: Z}, size)
        share = Rational(1, 2) if fault("couplings halved") else 1
        B = Matrix.diag(*h)
        for site, pair in enumerate(J):
            B[site, site + 1] = share * pair
        S = symbols(f"S_1:{size + 1}", positive=True)
        signs = itertools.product((1, -1), repeat=size)
        squared, det = B * B.T, B.det()
        trace = squared.trace()
        pairs = (trace**2 - (squared**2).trace()) / 2  # of two squares each: the second symmetric function
        yield Step(
            f"{size} spins: all sums of the singular values, each with either sign, as a polynomial in their squares.",
            prod(LEVEL - sum(s * one for s, one in zip(row, S, strict=True)) for row in signs),
            spectrum(sum(s**2 for s in S), sum((a * b) ** 2 for a, b in itertools.combinations(S, 2)), prod(S), size),
            name=r"\prod_\pm (E - \sum \pm S_k)",
        )
        yield Step(
            "Their symmetric functions are traces and the determinant of B B': the same polynomial is that of H.",
            H.charpoly().as_expr(LEVEL),
            spectrum(trace, pairs, det, size),
            name=r"\det(E - H)",
        )
    h1, h2, J = symbols("h_1 h_2 J", positive=True)
    B = Matrix([[h1, (Rational(1, 2) if fault("couplings halved") else 1) * J], [0, h2]])
    total = sqrt((B * B.T).trace() + 2 * B.det())
    polar = (B + B.det() * B.inv("ADJ").T) / total
    yield Step("Of two spins the polar factor in closed form: it is orthogonal,", polar.T * polar, eye(2))
    yield Step("what it leaves of B is symmetric,", polar.T * B, (polar.T * B).T)
    yield Step("with the sum of the singular values for its trace.", (polar.T * B).trace(), total)
    energy = -sqrt((h1 + h2) ** 2 + J**2)
    found = Matrix([[-diff(energy, h1), -diff(energy, J)], [-diff(energy, J), -diff(energy, h2)]])
    yield Step(
        "Its entries are the mean X of each spin, and the mean Z Z.",
        Matrix([found[0, 0], found[0, 1], found[1, 1]]),
        Matrix([polar[0, 0], polar[0, 1], polar[1, 1]]),
        name=r"-\nabla E_0",
    )


def spectrum(ones: Expr, pairs: Expr, product: Expr, size: int) -> Expr:
    """The polynomial whose roots are the sums of two or three numbers with any signs.

    Args:
        ones: the sum of their squares.
        pairs: the sum of the products of two of their squares.
        product: of the numbers.
        size: how many there are.
    """
    if size == 2:
        return (LEVEL**2 - ones - 2 * product) * (LEVEL**2 - ones + 2 * product)
    half = lambda sign: LEVEL**4 - 2 * ones * LEVEL**2 - 8 * sign * product * LEVEL + ones**2 - 4 * pairs
    return half(1) * half(-1)


@provable(
    "gaussian",
    faults={
        "masses forgotten": "the wave function taken as that of unit masses",
        "frequencies for their inverses": "stiff directions taken to spread most",
    },
)
def gaussian(fault: Planted) -> Iterator[Step]:
    hbar, m1, m2, p, r = symbols("hbar m_1 m_2 p r", positive=True)
    q, x1, x2, f1, f2 = symbols("q x_1 x_2 f_1 f_2", real=True)
    root, omega = Matrix.diag(sqrt(m1), sqrt(m2)), Matrix([[p, q], [q, r]])
    x, f = Matrix([x1, x2]), Matrix([f1, f2])
    K = root * omega * omega * root
    mu = K.inv("ADJ") * f
    width = (omega if fault("masses forgotten") else root * omega * root) / hbar
    off = x - Matrix(symbols("mu_1 mu_2", real=True))
    log_psi = -(off.T * width * off)[0] / 2
    kinetic = sum(-(hbar**2) / (2 * m) * (diff(log_psi, z, 2) + diff(log_psi, z) ** 2) for m, z in ((m1, x1), (m2, x2)))
    harmonic = (off.T * K * off)[0] / 2
    yield Step(
        "About the rest of the forces, exp(-(x - mu)' R Omega R (x - mu) / 2 hbar), R the roots of the masses, is an "
        "eigenstate.",
        kinetic + harmonic,
        hbar / 2 * omega.trace(),
        name=r"\frac{H\psi}{\psi}",
    )
    yield Step(
        "There the potential is this much lower.",
        (mu.T * K * mu)[0] / 2 - (f.T * mu)[0],
        -(f.T * K.inv("ADJ") * f)[0] / 2,
        name=r"V(\mu)",
    )
    spread = omega if fault("frequencies for their inverses") else omega.inv("ADJ")
    covariance = hbar / 2 * root.inv() * spread * root.inv()
    yield Step(
        "Integrated by parts, the density spreads by the inverse of twice the width.",
        covariance * (2 * width),
        eye(2),
        name=r"\mathrm{Cov}(x)\, 2W",
    )
    slopes = Matrix(2, 2, lambda i, j: diff(off[j], x[i]) + off[j] * 2 * diff(log_psi, x[i]))
    yield Step("For its flux has the divergence", slopes, eye(2) - 2 * width * off * off.T)
    momenta = hbar / 2 * root * omega * root
    yield Step(
        "Of the least uncertainty.", covariance * momenta, hbar**2 / 4 * eye(2), name=r"\mathrm{Cov}(x)\mathrm{Cov}(p)"
    )
    yield Step(
        "Half of the energy is motion.",
        (root.inv() ** 2 * momenta).trace() / 2,
        hbar / 4 * omega.trace(),
        name=r"\langle T\rangle",
    )
    for entry in (p, q, r):
        yield Step(
            f"How E_0 changes with Omega's entry {entry}, by the covariance: Hellmann and Feynman.",
            diff(hbar / 2 * omega.trace(), entry),
            (covariance * K.diff(entry)).trace() / 2,
            name=rf"\frac{{\partial E_0}}{{\partial {entry}}}",
        )


@provable(
    "homogeneous-limits",
    scope=r"a closed chain of many equal spins, of the bands $\sqrt{J^2 + h^2 - 2Jh\cos k}$: its gap $2|J - h|$ closes "
    r"at $J = h$, with $-4/\pi$ a spin; as $h \to 0$ it is an Ising chain, as $J \to 0$ spins of their own",
    faults={
        "opposite end": "the band with its minimum at the other end of the zone",
        "two fermions a spin": "the band summed over twice the zone",
    },
)
def homogeneous_limits(fault: Planted) -> Iterator[Step]:
    J, h, k = symbols("J h k", positive=True)
    sign = -1 if fault("opposite end") else 1
    band = sqrt(J**2 + h**2 - 2 * sign * J * h * cos(k))
    mode = h - J * exp(I * k)
    yield Step(
        "On a plane wave the matrix of the fermions, h - J times a shift, is a number, of this size squared.",
        expand(mode * (h - J * exp(-I * k))),
        band**2,
        name=r"|h - J e^{ik}|^2",
    )
    for count in (3, 4):
        B = Matrix(count, count, lambda i, j, n=count: h if i == j else -J if j == (i + 1) % n else 0)
        wave = Matrix([exp(2 * pi * I * j / count) for j in range(count)])
        yield Step(
            f"On a ring of {count} spins, in full.",
            ((B.T * B) * wave).expand(complex=True),
            (band**2).subs(k, 2 * pi / count) * wave.expand(complex=True),
        )
    zone = 2 if fault("two fermions a spin") else 1
    critical = 2 * J * sin(k / 2)
    yield Step("At J = h the band touches zero:", (band**2).subs(h, J), expand(critical**2), name=r"\epsilon_k^2")
    ground = -Integral(critical, (k, 0, zone * pi)) / pi
    yield Step("the energy of a spin there.", ground, -4 * J / pi, name="e_0")
    density = lambda coupling, field: -Integral(band.subs({J: coupling, h: field}), (k, 0, zone * pi)) / pi
    yield Step("Without a field: the classical chain.", density(J, Integer(0)), -J, name="e_0")
    yield Step("Without couplings: each spin by itself.", density(Integer(0), h), -h, name="e_0")
    yield Step(
        "The gap is at k = 0.",
        (band**2).subs(k, 0),
        (J - h) ** 2,
        name=r"\epsilon_0^2",
    )
    yield Step("There the band is lowest.", (band**2).subs(k, 0), band**2, margin=4 * J * h * sin(k / 2) ** 2)
    hbar, stiff, mass = symbols("hbar K m", positive=True)
    yield Step(
        "As hbar vanishes an oscillator is a spring: nothing is left of its spread.",
        Limit(hbar / (2 * sqrt(mass * stiff)), hbar, 0),
        Integer(0),
        name=r"\mathrm{Var}(x)",
    )
