"""How fast sliders redraw: processor and wall time of a frame of `explore`, of one picture of 100,000 nodes, and of
what a notebook shows of a system, an equilibrium, a run and a report.

python benchmarks/explorer.py      about a minute on a free machine; wanted are 100 ms a frame, 1 s for the picture and
                                   0.3 s for what a notebook shows
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learning import EquilibriumPropagation, fit
from substrates import HopfieldNetwork, IsingModel, OscillatorNetwork, ResistorNetwork, explore, start_session
from substrates.classical.oscillator.pictures import draw_graph
from substrates.wiring import lattice_edges
from theory_checks import check_substrate

SIDE = 17
FRAMES = 12


def systems():
    edges, n = lattice_edges((SIDE, SIDE), False), SIDE**2
    ends = {"inputs": [0, SIDE - 1], "outputs": [n - 1]}
    x = jnp.array([1.0, -0.5])
    conductance = np.linspace(0.5, 1.5, len(edges))
    yield "circuit", ResistorNetwork.from_edges(edges, n, conductance=conductance, **ends), x
    yield "oscillators", OscillatorNetwork.from_edges(edges, n=n, coupling=1.0, **ends), x
    yield "spins", IsingModel.from_edges(edges, n=n, coupling=np.ones(len(edges)), **ends), x
    sizes = (64, 200, 10)
    yield "Hopfield network", HopfieldNetwork.layered(sizes, key=jax.random.key(0)), jnp.linspace(0, 1, sizes[0])


def shown_in_notebooks():
    """The circuit, its equilibrium, a short training of it, and the report on a small network."""
    _, net, x = next(systems())
    yield "system", net
    yield "equilibrium", net.relax(x)
    rule, data = EquilibriumPropagation(0.1), (x[None], jnp.zeros((1, 1)))
    yield "run", fit(net, rule, data, optimiser=optax.sgd(0.1), epochs=3, key=jax.random.key(0), progress=False)
    small = HopfieldNetwork.layered((2, 2, 1), key=jax.random.key(0))
    yield "report", check_substrate(small, x[None], jnp.zeros((1, 1)))


def per_frame(move):
    """Milliseconds of processor and of wall time, once everything is compiled."""
    for k in range(2):
        move(k)
    busy, began = time.process_time(), time.perf_counter()
    for k in range(2, FRAMES + 2):
        move(k)
    return 1e3 * (time.process_time() - busy) / FRAMES, 1e3 * (time.perf_counter() - began) / FRAMES


def main():
    start_session()
    for name, net, x in systems():
        explorer = explore(net, x)
        slider = explorer.sliders["x[0]" if "x[0]" in explorer.sliders else "x"]
        busy, wall = per_frame(lambda k, slider=slider: setattr(slider, "value", 0.04 * k))
        print(f"{name:17} {busy:6.0f} ms of a processor, {wall:6.0f} ms of wall time a frame", flush=True)
    rows = 317
    edges, angles = lattice_edges((rows, rows), False), np.linspace(0, 6, rows**2)
    busy, began = time.process_time(), time.perf_counter()
    ax = draw_graph(rows**2, edges, np.ones(len(edges)), angles, {"inputs": [0], "outputs": [7]})
    ax.figure.canvas.draw()
    busy, wall = time.process_time() - busy, time.perf_counter() - began
    print(f"{rows**2:,} nodes     {busy:6.2f} s of a processor, {wall:6.2f} s of wall time a picture")
    for name, thing in shown_in_notebooks():
        began, busy = time.perf_counter(), time.process_time()
        thing._repr_html_()
        busy, wall = time.process_time() - busy, time.perf_counter() - began
        print(f"{name:15} {busy:6.2f} s of a processor, {wall:6.2f} s of wall time shown", flush=True)


if __name__ == "__main__":
    main()
