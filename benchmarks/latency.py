"""The first second: how long small questions take in a fresh process, with nothing compiled before and with all of it.

    python benchmarks/latency.py            # five rounds, some forty minutes on two cores
    python benchmarks/latency.py --quick    # two rounds
    python benchmarks/latency.py --only systems graphs

Every figure is the time of whole processes, start and end included, in interleaved rounds; medians. The floor is a
process that imports jax, equinox and optimistix and nothing else. Cold: what gets compiled is kept in a folder that was
empty. Warm: in a folder that a process with the same question has filled. Python keeps the bytecode of modules, as it
does by default. Numbers have 64 bits.
"""

import json
import sys
import time

FLOOR = "import jax, equinox, optimistix"
SIZE, BONDS = 8, 11


def edges(seed):
    """A random connected graph of 8 nodes and 11 edges."""
    import numpy as np

    draw = np.random.default_rng(seed)
    ring = np.stack([np.arange(SIZE), np.roll(np.arange(SIZE), -1)], axis=1)
    pairs = np.stack(np.triu_indices(SIZE, 1), axis=1)
    chords = [pair for pair in pairs if pair[1] - pair[0] not in (1, SIZE - 1)]
    chosen = draw.choice(len(chords), BONDS - SIZE, replace=False)
    return draw.permutation(SIZE)[np.concatenate([ring, [chords[k] for k in chosen]])]


def circuit(seed=0, **options):
    from substrates import ResistorNetwork

    return ResistorNetwork.from_edges(
        edges(seed), SIZE, inputs=[0, 1], outputs=[7], conductance=[1.0] * BONDS, **options
    )


def springs(seed=0):
    import jax

    from substrates import ElasticNetwork

    return ElasticNetwork.for_task(2, 2, sizes=(3,), key=jax.random.key(seed))


def ising(seed=0):
    import numpy as np

    from substrates import IsingModel

    coupling = np.random.default_rng(seed).normal(size=BONDS)
    return IsingModel.from_edges(edges(seed), SIZE, coupling=coupling, field=0.1, inputs=[0], outputs=[7])


def oscillators(seed=0):
    from substrates import OscillatorNetwork

    return OscillatorNetwork.from_edges(edges(seed), SIZE, coupling=1.0, field=0.1, inputs=[0], outputs=[7])


def quantum_spins(seed=0):
    from substrates import TransverseFieldIsing

    given = {"coupling": 0.8, "transverse_field": 1.1, "longitudinal_field": 0.2}
    return TransverseFieldIsing.from_edges(edges(seed), SIZE, inputs=[0], outputs=["Z7"], **given)


def quantum_oscillators(seed=0):
    from substrates import QuantumOscillatorNetwork

    return QuantumOscillatorNetwork.from_edges(edges(seed), SIZE, inputs=[0], outputs=[7])


def layered(name):
    import jax

    import substrates

    return getattr(substrates, name).for_task(3, 2, sizes=(4,), key=jax.random.key(0))


SYSTEMS = {
    "resistors": circuit,
    "resistors and two ideal diodes": lambda seed=0: circuit(seed, diodes=[(2, 3), (5, 6)]),
    "layered resistors": lambda: layered("ResistorNetwork"),
    "springs": springs,
    "spins": ising,
    "spins at a temperature": lambda: ising().ensemble(0.8),
    "oscillators": oscillators,
    "layered oscillators": lambda: layered("OscillatorNetwork"),
    "Hopfield": lambda: layered("HopfieldNetwork"),
    "predictive coding": lambda: layered("PredictiveCodingNetwork"),
    "quantum spins": quantum_spins,
    "quantum oscillators": quantum_oscillators,
}
GRAPHS = (
    "resistors",
    "resistors and two ideal diodes",
    "spins",
    "oscillators",
    "quantum spins",
    "quantum oscillators",
)
BETAS = {"springs": 1e-4}


def gradient(name, net, x, y):
    import jax

    from learning import EquilibriumPropagation

    rule = EquilibriumPropagation(BETAS.get(name, 0.01), "centered", strict=False)
    return jax.block_until_ready(rule(net, x[None], y[None], key=jax.random.key(0)).gradient)


def ask_system(name):
    """Seconds of the import, of building the system, of its first relaxation and of its first centred gradient."""
    began = time.perf_counter()
    import jax
    import numpy as np

    from learning import EquilibriumPropagation  # noqa: F401
    from substrates import start_session

    start_session()
    imported = time.perf_counter()
    net = SYSTEMS[name]()
    x = np.linspace(0.3, 0.8, (net.model if hasattr(net, "model") else net).input_size)
    built = time.perf_counter()
    settled = jax.block_until_ready(net.relax(x, key=jax.random.key(0)))
    relaxed = time.perf_counter()
    gradient(name, net, x, np.full(jax.eval_shape(net.read, settled.state, x).shape, 0.1))
    ended = time.perf_counter()
    return [imported - began, built - imported, relaxed - built, ended - relaxed]


def ask_graphs(name):
    """Milliseconds of the first gradients on five other graphs of the same sizes, after one on a first graph."""
    import jax.numpy as jnp

    from substrates import start_session

    start_session()
    taken = []
    for seed in range(6):
        net = SYSTEMS[name](seed)
        x = jnp.linspace(0.3, 0.8, net.input_size)
        began = time.perf_counter()
        gradient(name, net, x, jnp.full(1, 0.2))
        taken.append(1e3 * (time.perf_counter() - began))
    return taken[1:]


def ask_peer(name):
    QUESTIONS[name]()
    return []


def our_quantum_spins():
    import jax.numpy as jnp

    from substrates import TransverseFieldIsing, start_session

    start_session()
    print(
        TransverseFieldIsing.chain(12, coupling=1.0, transverse_field=1.0, longitudinal_field=0.3).relax(jnp.zeros(0))
    )


def qutip_quantum_spins():
    import qutip

    place = lambda op, *at: qutip.tensor([op if i in at else qutip.qeye(2) for i in range(12)])
    pairs = sum(place(qutip.sigmaz(), i, i + 1) for i in range(11))
    fields = sum(place(qutip.sigmax(), i) + 0.3 * place(qutip.sigmaz(), i) for i in range(12))
    print((-pairs - fields).groundstate(sparse=True)[0])


def ladder():
    return [(i, i + 1) for i in range(11)] + [(i, i + 3) for i in range(9)]


def our_circuit():
    import jax.numpy as jnp

    from substrates import ResistorNetwork, start_session

    start_session()
    conductance = jnp.linspace(0.5, 1.5, 20)
    net = ResistorNetwork.from_edges(ladder(), 12, inputs=[0, 11], outputs=[5], conductance=conductance)
    print(net.relax(jnp.array([1.0, 0.0])))


def numpy_circuit():
    import numpy as np

    laplacian = np.zeros((12, 12))
    for (i, j), g in zip(ladder(), np.linspace(0.5, 1.5, 20), strict=True):
        laplacian[[i, j], [i, j]] += g
        laplacian[[i, j], [j, i]] -= g
    print(np.linalg.solve(laplacian[1:11, 1:11], -laplacian[1:11, 0]))


def our_springs():
    import jax.numpy as jnp

    from substrates import ElasticNetwork, start_session

    start_session()
    pulled = {"clamped": ["left"], "inputs": [{"right": (1.0, 0.0)}], "outputs": [32]}
    print(ElasticNetwork.lattice("triangular", (8, 8), **pulled).relax(jnp.array([0.7])))


def scipy_springs():
    """The same triangular lattice, its left side held, its right side pulled out by 0.7."""
    import numpy as np
    import scipy.optimize

    row, column = np.divmod(np.arange(64), 8)
    rest = np.stack([column + 0.5 * (row % 2), np.sqrt(0.75) * row], axis=1)
    i, j = np.triu_indices(64, 1)
    joined = np.linalg.norm(rest[i] - rest[j], axis=1) < 1.1
    i, j = i[joined], j[joined]
    free = (column > 0) & (column < 7)
    positions = rest + np.where(column == 7, 0.7, 0.0)[:, None] * [1.0, 0.0]

    def energy(flat):
        placed = positions.copy()
        placed[free] = flat.reshape(-1, 2)
        stretch = placed[i] - placed[j]
        length = np.linalg.norm(stretch, axis=1)
        pull = ((length - 1) / length)[:, None] * stretch
        force = np.zeros_like(placed)
        np.add.at(force, i, pull)
        np.add.at(force, j, -pull)
        return 0.5 * np.sum((length - 1) ** 2), force[free].ravel()

    options = {"maxiter": 100_000, "ftol": 0.0, "gtol": 1e-10, "maxcor": 20}
    print(scipy.optimize.minimize(energy, positions[free].ravel(), jac=True, method="L-BFGS-B", options=options).fun)


QUESTIONS = {
    "12 quantum spins": our_quantum_spins,
    "12 quantum spins, QuTiP": qutip_quantum_spins,
    "a circuit of 12 nodes": our_circuit,
    "a circuit of 12 nodes, numpy": numpy_circuit,
    "8 x 8 springs": our_springs,
    "8 x 8 springs, SciPy": scipy_springs,
}
PEERS = {"12 quantum spins": ("QuTiP", 2), "a circuit of 12 nodes": ("numpy", 3), "8 x 8 springs": ("SciPy", 3)}


def ask_check(name):
    """Seconds of `check_substrate`, imports not counted."""
    import jax
    import jax.numpy as jnp

    from substrates import Substrate, start_session
    from theory_checks import check_substrate

    class SpringChain(Substrate):
        stiffness: jax.Array

        def energy(self, position, x):
            stretch = jnp.diff(jnp.concatenate([x, position])) - 1.0
            return 0.5 * jnp.sum(self.stiffness * stretch**2) + 0.25 * jnp.sum(position**4)

        def initial_state(self, x):
            return jnp.zeros(self.stiffness.shape)

        def read(self, position, x):
            return position[-1:]

    start_session()
    began = time.perf_counter()
    report = check_substrate(SpringChain(jnp.array([1.0, 2.0])), jnp.array([[0.3], [-0.4]]), jnp.array([[0.5], [0.1]]))
    assert report.passed
    return [time.perf_counter() - began]


ASK = {"systems": ask_system, "graphs": ask_graphs, "peers": ask_peer, "check": ask_check}


def main():
    import argparse
    import os
    import statistics
    import subprocess
    import tempfile
    from collections import defaultdict
    from pathlib import Path

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds in place of five")
    parser.add_argument("--only", nargs="+", choices=["imports", *ASK], default=["imports", *ASK])
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    options = parser.parse_args()
    names = {
        "imports": ["floor", "substrates", "substrates and learning, all names"],
        "systems": options.systems,
        "graphs": [name for name in GRAPHS if name in options.systems],
        "peers": list(QUESTIONS),
        "check": ["a system of three methods"],
    }
    temperatures = {"imports": [None], "graphs": ["cold"], "peers": ["cold"]}
    seconds, shares = defaultdict(list), defaultdict(list)
    imports = {
        "floor": FLOOR,
        "substrates": FLOOR + "; import substrates",
        "substrates and learning, all names": FLOOR + "; from substrates import *; from learning import *",
    }

    def run(kind, name, folder):
        """Seconds of a whole process, and what it says about its parts."""
        program = ["-c", imports[name]] if kind == "imports" else [__file__, "ask", kind, name]
        surroundings = os.environ | {"GROUNDSTATE_CACHE": str(folder), "PYTHONDONTWRITEBYTECODE": ""}
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *program], capture_output=True, text=True, env=surroundings, check=False)
        taken = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{kind}, {name}:\n{done.stderr}")
        return taken, json.loads(done.stdout.splitlines()[-1]) if kind != "imports" else []

    with tempfile.TemporaryDirectory() as place:
        jobs = [
            (kind, name, temperature)
            for kind in names
            if kind in options.only or kind == "imports"
            for name in names[kind]
            for temperature in temperatures.get(kind, ["cold", "warm"])
        ]
        for turn in range(2 if options.quick else 5):
            for number, (kind, name, temperature) in enumerate(jobs):
                warm = Path(place) / f"{kind}-{name}"
                folder = warm if temperature == "warm" else Path(place) / f"{turn}-{number}"
                if temperature == "warm" and not turn:
                    run(kind, name, folder)
                taken, parts = run(kind, name, folder)
                seconds[kind, name, temperature].append(taken)
                shares[kind, name, temperature].append(parts)
                print(f"round {turn + 1}, {kind}, {name}, {temperature}: {taken:.2f} s", file=sys.stderr)

    took = lambda *job: statistics.median(seconds[job])
    parts = lambda *job: [statistics.median(part) for part in zip(*shares[job], strict=True)]
    floor = took("imports", "floor", None)
    print(f"| process | seconds | over the floor |\n|---|---|---|\n| the floor: {FLOOR} | {floor:.2f} | 1 |")
    for name in names["imports"][1:]:
        print(
            f"| the same and {name} | {took('imports', name, None):.2f} | {took('imports', name, None) / floor:.2f} |"
        )
    if "systems" in options.only:
        print("\n| system | import, build, relaxation, gradient: cold, s | over the floor | warm, s | over the floor |")
        print("|---|---|---|---|---|")
        for name in names["systems"]:
            cells = []
            for temperature in ("cold", "warm"):
                job = ("systems", name, temperature)
                cells += [", ".join(f"{part:.2f}" for part in parts(*job)), f"{took(*job) / floor:.2f}"]
            print(f"| {name} | " + " | ".join(cells) + " |")
    if "graphs" in options.only:
        print("\n| other graphs of the same sizes | first gradient, ms: median, largest |\n|---|---|")
        for name in names["graphs"]:
            each = parts("graphs", name, "cold")
            print(f"| {name} | {statistics.median(each):.0f}, {max(each):.0f} |")
    if "peers" in options.only:
        print("\n| question | ours, cold, s | theirs, s | difference, s | wanted |\n|---|---|---|---|---|")
        for name, (peer, wanted) in PEERS.items():
            ours, theirs = took("peers", name, "cold"), took("peers", f"{name}, {peer}", "cold")
            print(f"| {name} | {ours:.2f} | {theirs:.2f} ({peer}) | {ours - theirs:.2f} | {wanted} |")
    if "check" in options.only:
        cold, warm = (parts("check", names["check"][0], temperature)[0] for temperature in ("cold", "warm"))
        print(f"\n| check_substrate | cold, s | warm, s |\n|---|---|---|\n| three methods | {cold:.1f} | {warm:.1f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(json.dumps(ASK[sys.argv[2]](sys.argv[3])))
    else:
        main()
