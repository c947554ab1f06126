"""The square lattice solved: exact energies and magnetisation of the ferromagnet, which samples are held against."""

from __future__ import annotations

import numpy as np
import scipy

CRITICAL_TEMPERATURE = 2 / np.log(1 + 2**0.5)
"""Of the square lattice with coupling 1."""


def onsager_energy(temperature: float) -> float:
    """The mean energy per spin of the infinite square lattice with coupling 1 and no field.

    u = -coth(2K) [1 + (2/pi) (2 tanh(2K)^2 - 1) K1(k)], with K = 1/T, k = 2 sinh(2K)/cosh(2K)^2 and K1 the complete
    elliptic integral of the first kind.

    Source: Onsager 1944, Phys. Rev. 65, 117.
    """
    K = 1 / temperature
    gap = 2 * np.tanh(2 * K) ** 2 - 1
    # 1 - k^2 = gap^2, by which the integral is taken without cancellation near the critical temperature
    integral = scipy.special.ellipkm1(gap**2) if gap else 0.0
    return float(-(1 + 2 / np.pi * gap * integral) / np.tanh(2 * K))


def onsager_magnetisation(temperature: float) -> float:
    """The spontaneous magnetisation per spin of the infinite square lattice: (1 - sinh(2/T)^-4)^(1/8), 0 above T_c.

    Source: Onsager 1949, Yang 1952, Phys. Rev. 85, 808.
    """
    inside = 1 - np.sinh(2 / temperature) ** -4.0
    return float(inside**0.125) if inside > 0 and temperature < CRITICAL_TEMPERATURE else 0.0


def torus_energy(shape: tuple[int, int], temperature: float) -> float:
    """The mean energy per spin of a finite periodic lattice with coupling 1, exact; each side at least 3.

    From Kaufman's partition function, Z = (2 sinh 2K)^(nm/2) / 2 * sum of four products of 2 cosh(m g_r / 2) and
    2 sinh(m g_r / 2), cosh g_r = cosh(2K) coth(2K) - cos(pi r/n).

    Source: Kaufman 1949, Phys. Rev. 76, 1232; the energy as in Ferdinand and Fisher 1969, Phys. Rev. 185, 832.
    """
    n, m = shape
    if min(n, m) < 3:
        raise ValueError(f"shape: wanted sides of at least 3, on which every pair is coupled once, got {shape}")
    K = 1 / temperature
    r = np.arange(2 * n)
    mean = np.cosh(2 * K) / np.tanh(2 * K)
    slope = 2 * np.cosh(2 * K) * (1 - 1 / np.sinh(2 * K) ** 2)  # d mean/dK
    cosh = mean - np.cos(np.pi * r / n)
    g = np.arccosh(np.maximum(cosh, 1.0))
    g[0] = 2 * K + np.log(np.tanh(K))
    rate = np.divide(slope, np.sqrt(np.maximum(cosh**2 - 1, 0)), out=np.zeros(2 * n), where=r > 0)
    rate[0] = 2 + 2 / np.sinh(2 * K)
    half = m * g / 2
    logs, signs, rates = [], [], []
    for odd, hyperbolic in ((1, np.cosh), (1, np.sinh), (0, np.cosh), (0, np.sinh)):
        part = slice(odd, None, 2)
        h = half[part]
        size = np.abs(h) + np.log1p((1 if hyperbolic is np.cosh else -1) * np.exp(-2 * np.abs(h)) + 0.0)
        logs.append(size.sum())
        signs.append(np.prod(np.sign(hyperbolic(np.clip(h, -1, 1)))))
        ratio = np.tanh(h) if hyperbolic is np.cosh else 1 / np.tanh(h)
        rates.append(m / 2 * np.sum(rate[part] * ratio))
    weights = np.array(signs) * np.exp(np.array(logs) - max(logs))
    return float(-(1 / np.tanh(2 * K) + weights @ rates / weights.sum() / (n * m)))
