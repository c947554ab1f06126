"""Packages that only some of the toolkit needs."""

from importlib import import_module
from types import ModuleType


def needed(extra: str, *names: str) -> list[ModuleType]:
    """Modules of packages that come with an extra of this package.

    Raises ImportError, which says what to install, where one is missing.
    """
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise ImportError(
            f"{error.name}: wanted this package, which is not installed; pip install 'groundstate[{extra}]'"
        ) from error
