"""Where an error comes from: out of the project, which knows what was asked, or from inside a library."""

import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / name) for name in ("substrates", "learning", "theory_checks"))


def refusal(call):
    """The error that a call ends in, None where it is taken; fails where the error was not raised by the project."""
    try:
        call()
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        last = frames[-1]
        assert last.filename.startswith(PACKAGES), (
            f"raised inside {last.filename}:{last.lineno}, not by the project: {type(error).__name__}: {error}"
        )
        assert isinstance(error, ValueError | TypeError | NotImplementedError), repr(error)
        assert str(error), repr(error)
        return error
    return None
