"""Compiles three programs in a process of its own, and prints what became of them, as JSON.

python compiling.py [--as-nobody] starts a session as the README says; `GROUNDSTATE_CACHE` says where.
"""

import json
import os
import sys
import warnings

import jax
import jax.numpy as jnp

from substrates import start_session


def main(as_nobody):
    counts = {"hits": 0, "misses": 0}

    def count(event, **_):
        for kind in counts:
            counts[kind] += event == f"/jax/compilation_cache/cache_{kind}"

    jax.monitoring.register_event_listener(count)
    programs = [jax.jit(lambda x, k=k: jnp.sort(jnp.sin(x) / k)) for k in (1.0, 2.0, 3.0)]
    if as_nobody and os.getuid() == 0:  # root writes anywhere
        os.setuid(65534)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start_session()
    with warnings.catch_warnings(record=True) as rejected:
        warnings.simplefilter("always")
        values = [float(program(jnp.arange(3.0))[1]) for program in programs]
    said = {"warnings": [str(one.message) for one in caught], "rejected": [str(one.message) for one in rejected]}
    print(json.dumps(counts | said | {"values": values, "folder": jax.config.values["jax_compilation_cache_dir"]}))


if __name__ == "__main__":
    main("--as-nobody" in sys.argv)
