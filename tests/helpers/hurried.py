"""The compiler's flags for tests, which compile thousands of small programs and run each a few times."""

import mmap
from pathlib import Path

import jaxlib

EMITTERS = "xla_cpu_use_fusion_emitters"


def xla_flags():
    """No optimisation, which halves the time of tests, and the older emitters of loops, which halve it again."""
    plain = "--xla_backend_optimization_level=0"
    return f"{plain} --{EMITTERS}=false" if known(EMITTERS) else plain


def known(flag):
    """Whether jaxlib has heard of a flag: XLA ends a process that was given another."""
    try:
        with (
            Path(jaxlib.__file__).with_name("libjax_common.so").open("rb") as library,
            mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            return text.find(flag.encode()) >= 0
    except OSError:
        return False


def as_users_compile():
    """Compiler options of the newer emitters, by which programs that compute the same round alike."""
    return {EMITTERS: True} if known(EMITTERS) else {}
