"""Trains in a folder that other processes may be training in: shared_folder.py FOLDER EPOCHS [resume] [hold].

With `hold` it says "holding" when its first epoch is done and waits for a line before it goes on. Ends with code 3 and
the message where it is refused.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from linear_response import LinearResponse

from learning import EquilibriumPropagation, fit
from learning.run_folder import RunFolder, RunFolderError


def main(folder, epochs, *words):
    if "hold" in words:
        add = RunFolder.add_metrics

        def held(self, row):
            add(self, row)
            if row["epoch"] == 1 or "resume" in words:
                print("holding", flush=True)
                sys.stdin.readline()
                RunFolder.add_metrics = add

        RunFolder.add_metrics = held
    net = LinearResponse(jnp.zeros((2, 3)), jnp.zeros(2))
    data = (np.arange(24.0).reshape(8, 3) / 24, np.ones((8, 2)))
    print("started", flush=True)
    try:
        fit(
            net, EquilibriumPropagation(0.5), data, optimiser=optax.adam(0.01), epochs=int(epochs), batch_size=4,
            key=jax.random.key(0), out=folder, resume="resume" in words, progress=False,
        )  # fmt: skip
    except RunFolderError as error:
        print(error, flush=True)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
