"""Where an error comes from: out of the project, which knows what was asked, or from inside a library."""

import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / name) for name in ("substrates", "learning", "theory_checks"))


def refusal(call):
    """The error that a call ends in, None where it is taken; fails where the error was not raised by the project."""
    try:
        call()
    except Exception as error:  # whatever comes
        found = error
    else:
        return None
    frames = traceback.extract_tb(found.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}"
    assert place.startswith(PACKAGES), f"raised inside {place}, not by the project: {type(found).__name__}: {found}"
    assert isinstance(found, ValueError | TypeError | NotImplementedError), repr(found)
    assert str(found), repr(found)
    return found
