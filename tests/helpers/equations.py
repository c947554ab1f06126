"""How large compiled programs are: the equations of a jaxpr, those of its loops and branches included."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def equations(function: Callable, *arguments: Any) -> int:
    """The equations of the program that a function compiles to; arguments that are no arrays are part of it."""
    arrays, static = eqx.partition(arguments, eqx.is_array)
    program = jax.make_jaxpr(lambda arrays: eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array))(arrays)
    return _count(program.jaxpr)


def _count(program: Jaxpr) -> int:
    return sum(1 + sum(map(_count, _inside(list(equation.params.values())))) for equation in program.eqns)


def _inside(value: Any) -> Iterator[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, Jaxpr):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _inside(each)
