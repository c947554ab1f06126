"""The command `groundstate new`: a file to start a system of one's own from, with its test."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
from pathlib import Path
from typing import Any

from learning.options import UsageError

SUBSTRATE = '''\
"""A system of your own: replace its physics by yours, and let the test tell whether it is sound."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from substrates import Substrate

State = tuple[Float[Array, "hidden"], Float[Array, "outputs"]]


class CLASS(Substrate):
    """Masses in quartic wells: the input pushes the hidden ones, which pull the outputs.

        E = sum_i (s_i^2/2 + s_i^4/4) - h . (W x + b) - o . (V h),    s = (h, o).

    Attributes:
        weight: W, shape (hidden, inputs).
        bias: b, shape (hidden,).
        coupling: V, shape (outputs, hidden).

    Arrays are trainable; a constant is declared as `mass: Array = fixed()`.
    """

    weight: Float[Array, "hidden inputs"]
    bias: Float[Array, "hidden"]
    coupling: Float[Array, "outputs hidden"]

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """What the system minimises, a scalar, for one example."""
        hidden, output = state
        wells = sum(jnp.sum(s**2 / 2 + s**4 / 4) for s in state)
        return wells - hidden @ (self.weight @ x + self.bias) - output @ (self.coupling @ hidden)

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        """Where it starts to settle."""
        return jnp.zeros_like(self.bias), jnp.zeros(self.coupling.shape[0], self.bias.dtype)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        """What the output terminals show."""
        return state[1]

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """One that fits a data set; `groundstate train` builds it so."""
        (hidden,) = (16,) if sizes is None else sizes
        first, second = jax.random.split(key)
        return cls(
            weight=jax.random.normal(first, (hidden, n_inputs)) / n_inputs**0.5,
            bias=jnp.zeros(hidden),
            coupling=jax.random.normal(second, (n_outputs, hidden)) / hidden**0.5,
        )

    def training_defaults(self) -> dict[str, Any]:
        """What `groundstate train` uses where its user says nothing."""
        return {"beta": 0.1, "epochs": 20, "batch_size": 16, "optimiser": "adam", "learning_rate": 0.01}
'''

TEST = '''\
"""MODULE.py against the laws of the contract and of equilibrium propagation: python -m pytest test_MODULE.py"""

import jax
import optax
from learning import EquilibriumPropagation, fit
from substrates import start_session
from theory_checks import laws_of

from MODULE import CLASS

start_session()  # 64 bits: in 32, rounding can hide how the bias falls with the nudge

SYSTEM = CLASS.for_task(3, 2, sizes=(4,), key=jax.random.key(0))
X = jax.random.normal(jax.random.key(1), (8, 3))
Y = 0.4 * jax.numpy.sin(X[:, :2])

TestLaws = laws_of(SYSTEM, X[:2], Y[:2])  # each law is a test of its own


def test_it_learns():
    rule = EquilibriumPropagation(beta=0.1)
    run = fit(SYSTEM, rule, (X, Y), optimiser=optax.adam(0.05), epochs=40, key=jax.random.key(2), progress=False)
    assert run.history["cost"][-1] < 0.1 * run.history["cost"][0]
'''


def add(commands: Any) -> None:
    """Adds the command to the parsers of `groundstate`."""
    parser = commands.add_parser(
        "new",
        help="write a system of your own to start from, with its test",
        description="Writes a substrate that settles, learns and passes its test, to be changed into yours. Nothing is "
        "overwritten.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_new)
    parser.add_argument("kind", choices=("substrate",), help="what to write")
    parser.add_argument("file", type=Path, metavar="FILE.py", help="such as my_system.py, which defines MySystem")


def _new(options: argparse.Namespace) -> int:
    file: Path = options.file
    test = file.with_name(f"test_{file.name}")
    _require_module_name(file)
    for path in (file, test):
        if path.exists():
            raise UsageError(f"file: {path} is there already; give another name, or move it away")
    name = "".join(word.capitalize() for word in file.stem.split("_"))
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((file, SUBSTRATE), (test, TEST)):
        path.write_text(text.replace("CLASS", name).replace("MODULE", file.stem))
    print(f"{file} defines {name}, and {test} holds it against every law. Next:")
    print(f"  python -m pytest {test}")
    print(f"  groundstate check {file}:{name}")
    print(f"  groundstate train {file}:{name} --data iris")
    return 0


def _require_module_name(file: Path) -> None:
    """Raises UsageError for a file that no `import` would find, or in whose place another module would be found."""
    stem = file.stem
    if file.suffix != ".py" or not stem.isidentifier() or keyword.iskeyword(stem) or not stem.strip("_"):
        raise UsageError(f"file: wanted a name to import, such as my_system.py, got {file.name}")
    if importlib.util.find_spec(stem) is not None:
        raise UsageError(f"file: a module {stem} is installed, which {file.name} would hide; give another name")
