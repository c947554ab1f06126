"""A run's folder gives back what was trained, in any process; what it cannot give back it says."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from black_boxes import SpringScale
from every_system import SYSTEMS, input_size
from jaxtyping import Array
from linear_response import LinearResponse

from learning import AgnosticEP, Data, EquilibriumPropagation, evaluate, fit, load_data, load_run, predict, run_folder
from learning.checkpoint import CheckpointError
from learning.data import Split
from learning.homeostat import SelfControl
from learning.run_folder import RunFolderError
from learning.structure import StructureError, build, write_down
from substrates import Plant, PredictiveCodingNetwork, ResistorNetwork

HELPERS = Path(__file__).parent.parent / "helpers"
KEY = jax.random.key(0)
NAMES = np.array(["oak", "ash", "elm"])


def flowers(dtype=np.float32):
    """Examples of three classes that lie apart, and a system with three outputs."""
    rng = np.random.default_rng(5)
    labels = np.arange(30) % 3
    x = (np.eye(3)[labels] + 0.1 * rng.normal(size=(30, 3))).astype(dtype)
    return x, labels, LinearResponse(jnp.zeros((3, 3), dtype), jnp.zeros(3, dtype), jnp.asarray(jnp.inf, dtype))


def trained(folder, data=None, net=None, **options):
    x, labels, own = flowers()
    given = dict(optimiser=optax.adam(0.05), epochs=4, batch_size=10, key=KEY, progress=False) | options
    return fit(own if net is None else net, EquilibriumPropagation(0.5), data or (x, labels), out=folder, **given)


def same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert type(one) is type(other)
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def program(text, tmp_path, x64=False):
    """What another process prints, which shares nothing with this one but files."""
    script = tmp_path / "program.py"
    script.write_text(f"import jax\njax.config.update('jax_enable_x64', {x64})\n{text}")
    paths = os.pathsep.join([str(HELPERS), str(HELPERS.parent.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# what a system is


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_built_again_from_json_and_arrays(name):
    net = SYSTEMS[name]()
    structure, arrays = write_down(net)
    same(net, build(json.loads(json.dumps(structure)), dict(enumerate(map(np.asarray, arrays)))))


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_every_system_can_be_copied_and_pickled(name, again):
    net = SYSTEMS[name]()
    same(net, again(net))


@pytest.mark.parametrize("name", ["resistors", "springs", "layered resistors", "spins", "quantum spins"])
def test_a_system_built_again_settles_alike(name):
    net = SYSTEMS[name]()
    structure, arrays = write_down(net)
    again = build(structure, dict(enumerate(map(np.asarray, arrays))))
    x = jnp.linspace(0.2, 0.6, input_size(net))
    same(net.relax(x, key=KEY).state, again.relax(x, key=KEY).state)


class Odd(eqx.Module):
    setting: object = None
    numbers: Array | None = None


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -0.0, float("inf"), 1 + 2j, "text", (1, ("a",)), [1, [2]], {"a": 1, "b": {}}, jnp.tanh,
        jax.nn.relu, np.float32(0.1), np.dtype("int16"), ResistorNetwork, ResistorNetwork.from_edges,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_settings_of_every_kind_come_back(value):
    structure, arrays = write_down(Odd(value))
    again = build(json.loads(json.dumps(structure)), dict(enumerate(map(np.asarray, arrays)))).setting
    assert type(again) is type(value)
    assert again == value


def test_keys_and_short_numbers_come_back():
    tree = (jax.random.key(3), jnp.asarray([1.5], jnp.bfloat16), Odd(numbers=jnp.zeros(0, jnp.int32)))
    structure, arrays = write_down(tree)
    again = build(structure, {i: np.asarray(jax.random.key_data(a) if i == 0 else a) for i, a in enumerate(arrays)})
    assert jnp.array_equal(jax.random.key_data(again[0]), jax.random.key_data(tree[0]))
    same(again[1:], tree[1:])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda x: x, r"Odd\.setting: .*<lambda>"),
        (open, "a name of Python itself"),
        (os.system, "a name of Python itself"),
        (object(), "no dataclass"),
        ({1, 2}, "no dataclass"),
        (np.array([{}]), "an array of object, not of numbers"),
        (np.array(["a"]), "an array of <U1, not of numbers"),
    ],
)
def test_what_cannot_be_written_down_is_named(value, words):
    with pytest.raises(StructureError, match=words):
        write_down(Odd(value))


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ({"reference": "os:system"}, "a name of Python itself"),
        ({"reference": "builtins:eval"}, "a name of Python itself"),
        ({"reference": "substrates.session:os.system"}, "not in substrates.session"),
        ({"reference": "antigravity_of_mine:fly"}, "is not imported here; import it first"),
        ({"object": "learning.lock:FolderLock", "fields": {}}, r"has the fields \(none\) here"),
        ({"object": "learning.data:Split", "fields": {"train": 1}}, "had train"),
        ({"object": "learning.absent:Thing", "fields": {}}, "cannot be imported"),
    ],
)
def test_nothing_else_is_built(structure, words):
    with pytest.raises(StructureError, match=words):
        build(structure, {})


# runs


def test_a_run_comes_back(tmp_path):
    x, labels, _ = flowers()
    run = trained(tmp_path / "run", validation=(x[:6], labels[:6]), test=(x[6:9], labels[6:9]))
    again = load_run(tmp_path / "run")
    same(run.substrate, again.substrate)
    assert again.history.keys() == run.history.keys()
    for name, values in run.history.items():
        np.testing.assert_array_equal(again.history[name], values)
    assert (again.epochs, again.interrupted, again.folder) == (4, False, tmp_path / "run")
    np.testing.assert_array_equal(again.epoch_seconds, run.epoch_seconds)
    assert again.classes == run.classes == (0, 1, 2)
    for loaded, given in zip(again.data, ((x, labels), (x[:6], labels[:6]), (x[6:9], labels[6:9])), strict=True):
        for one, other in zip(loaded, given, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
    assert evaluate(again.substrate, again.data.test).cost == run.test.cost
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["class"] == "linear_response:LinearResponse"
    assert config["groundstate"] == run_folder.version()


def test_a_run_that_is_not_done_comes_back_as_far_as_it_is(tmp_path):
    trained(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epochs": 9}))
    assert load_run(tmp_path / "run").interrupted


@pytest.mark.parametrize("name", ["resistors", "springs", "layered resistors", "quantum spins", "continuous Hopfield"])
def test_every_kind_of_system_comes_back_from_its_folder(tmp_path, name):
    net = SYSTEMS[name]()
    x = jnp.linspace(0.2, 0.6, 2 * input_size(net)).reshape(2, -1)
    y = jnp.tile(net.read(net.relax(x[0]).state, x[0]), (2, 1))
    beta = 1e-4 if name == "springs" else 0.01
    run = fit(
        net, EquilibriumPropagation(beta), (x, y), optimiser=optax.sgd(1e-3), epochs=1, key=KEY, progress=False,
        out=tmp_path / "run",
    )  # fmt: skip
    again = load_run(tmp_path / "run")
    same(run.substrate, again.substrate)
    assert again.classes is None
    np.testing.assert_array_equal(again.predict(x).outputs, run.predict(x).outputs)


def test_a_set_of_load_data_is_not_copied_but_named(tmp_path):
    data = load_data("iris", seed=3, validation=0.2)
    net = LinearResponse(jnp.zeros((3, 4)), jnp.zeros(3))
    run = trained(tmp_path / "run", data, net)
    assert not (tmp_path / "run" / "data.npz").exists()
    again = load_run(tmp_path / "run")
    assert isinstance(again.data, Data)
    same(
        [data.train, data.validation, data.test],
        [again.data.train, again.data.validation, again.data.test],
    )
    assert again.classes == data.classes == ("setosa", "versicolor", "virginica")
    assert run.test.size == len(data.test[1])
    assert set(again.predict(data.test[0]).labels) <= set(data.classes)
    with pytest.raises(ValueError, match="validation, test: the data set iris brings its own"):
        trained(None, data, net, test=data.test)
    with pytest.raises(ValueError, match="data: 3 classes want as many outputs, and the system has 4"):
        trained(None, data, LinearResponse(jnp.zeros((4, 4)), jnp.zeros(4)))


def test_data_that_take_much_room_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_MOST_DATA", 100)
    run = trained(tmp_path / "run")
    assert not (tmp_path / "run" / "data.npz").exists()
    assert isinstance(run.data, Split)
    again = load_run(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"data: .* does not hold its examples: they take 0 MB, and up to 0 MB"):
        again.data  # noqa: B018


def test_another_set_of_the_same_name_is_noticed(tmp_path, monkeypatch):
    data = load_data("iris")
    trained(tmp_path / "run", data, LinearResponse(jnp.zeros((3, 4)), jnp.zeros(3)))
    monkeypatch.setattr(run_folder, "load_data", lambda *_, **__: load_data("iris", seed=1))
    with pytest.raises(RunFolderError, match="data: iris has other examples here"):
        load_run(tmp_path / "run").data  # noqa: B018


# other processes and precisions

SHOW = """
import numpy as np, linear_response
from learning import load_run
run = load_run("run")
print(run.substrate.weight.dtype, run.substrate.weak_point.dtype)
np.save("seen.npy", run.predict(np.eye(3)).outputs)
"""


@pytest.mark.parametrize(("wrote", "reads"), [(64, 32), (32, 64)])
def test_a_run_is_loaded_in_another_precision(tmp_path, wrote, reads):
    x, labels, net = flowers(np.dtype(f"float{wrote}"))
    run = trained(tmp_path / "run", (x, labels), net)
    shown = program(SHOW, tmp_path, x64=reads == 64)
    dtype = f"float{min(wrote, reads)}"
    assert shown.split() == [dtype, dtype]
    seen = np.load(tmp_path / "seen.npy")
    assert seen.dtype == dtype
    np.testing.assert_allclose(seen, run.predict(np.eye(3)).outputs, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_a_circuit_is_loaded_in_32_bits_where_it_was_trained_in_64(tmp_path):
    net = SYSTEMS["resistors"]()
    x, y = np.array([[0.3], [0.6]]), np.array([[0.1], [0.2]])
    rule = EquilibriumPropagation(0.01)
    options = dict(optimiser=optax.sgd(1e-3), epochs=1, key=KEY, progress=False)
    run = fit(net, rule, (x, y), out=tmp_path / "run", **options)
    text = "import numpy as np\nfrom learning import load_run\nrun = load_run('run')\n"
    program(text + "np.save('seen.npy', run.predict(np.array([[0.3], [0.6]])).outputs)", tmp_path)
    seen = np.load(tmp_path / "seen.npy")
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, run.predict(x).outputs, atol=1e-6)


def test_a_class_of_ones_own_is_to_be_imported_first(tmp_path):
    trained(tmp_path / "run")
    text = """
from learning import load_run
try:
    load_run("run")
except ValueError as error:
    print(error)
import jax.numpy as jnp
import linear_response
print(load_run("run").epochs)
"""
    first, second = program(text, tmp_path).splitlines()
    assert "holds a linear_response:LinearResponse, written by groundstate" in first
    assert "the module linear_response is not imported here; import it first; give like=" in first
    assert second == "4"


def test_a_class_of_a_script_is_found_in_a_script_that_defines_it(tmp_path):
    define = """
import sys, jax.numpy as jnp, numpy as np, optax
from learning import EquilibriumPropagation, fit, load_run
from linear_response import LinearResponse
class Mine(LinearResponse):
    pass
"""
    write = """
net = Mine(jnp.zeros((3, 3)), jnp.zeros(3))
fit(net, EquilibriumPropagation(0.5), (np.eye(3), np.arange(3)), optimiser=optax.sgd(0.1), epochs=1,
    key=jax.random.key(0), progress=False, out="run")
"""
    program(define + write, tmp_path)
    assert program(define + "print(type(load_run('run').substrate) is Mine)", tmp_path) == "True\n"
    with pytest.raises(RunFolderError, match=r"__main__:Mine is not in __main__ here; .* give like="):
        load_run(tmp_path / "run")


class Box:
    """Examples in a container of somebody's own."""

    def __init__(self, values):
        self.values = values


jax.tree_util.register_pytree_node(Box, lambda box: ((box.values,), None), lambda _, values: Box(*values))


def test_data_of_jax_come_back_as_numpy_and_strange_ones_are_named(tmp_path):
    x, labels, _ = flowers()
    trained(tmp_path / "a", (jnp.asarray(x), jnp.asarray(labels)))
    loaded = load_run(tmp_path / "a").data.train
    assert [type(part) for part in loaded] == [np.ndarray, np.ndarray]
    np.testing.assert_array_equal(loaded[0], x)
    split = Split((Box(x), labels))
    folder = run_folder.RunFolder(tmp_path / "b", {}, resume=False)
    folder.describe(None, None, split)
    folder.close()
    with pytest.raises(RunFolderError, match=r"does not hold its examples: .*Box, which is no dataclass, which is not"):
        run_folder.read_data(tmp_path / "b")


def local_class():
    class Local(LinearResponse):
        pass

    return Local


def test_a_class_that_no_module_shows_is_filled_by_an_instance(tmp_path):
    net = flowers()[-1]
    kind = local_class()
    run = trained(tmp_path / "run", net=kind(net.weight, net.offset, net.weak_point))
    with pytest.raises(RunFolderError, match=r"cannot be built here .* inside a function.*give like="):
        load_run(tmp_path / "run")
    again = load_run(tmp_path / "run", like=kind(net.weight + 1, net.offset + 2, net.weak_point))
    same(run.substrate, again.substrate)
    for other, words in (
        (LinearResponse(jnp.zeros((3, 2)), jnp.zeros(3)), r"weight is float64\[3, 2\] here and float32\[3, 3\]"),
        (SYSTEMS["spins"](), "coupling.* absent in the file"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_run(tmp_path / "run", like=other)
    with pytest.raises(TypeError, match="like: wanted a Substrate or a PhysicalSystem, got str"):
        load_run(tmp_path / "run", like="net")


def test_a_class_that_changed_says_how(tmp_path, monkeypatch):
    trained(tmp_path / "run")
    names = {"__module__": "linear_response", "__annotations__": {"mass": Array}, "mass": None}
    changed = type(LinearResponse)("LinearResponse", (LinearResponse,), names)
    monkeypatch.setattr(sys.modules["linear_response"], "LinearResponse", changed)
    with pytest.raises(RunFolderError, match="the fields weight, offset, weak_point, mass here, and had weight, of"):
        load_run(tmp_path / "run")


def test_folders_without_a_run_that_can_be_loaded(tmp_path):
    with pytest.raises(RunFolderError, match="there is no run in"):
        load_run(tmp_path)
    trained(tmp_path / "run")
    (tmp_path / "run" / "system.npz").unlink()
    with pytest.raises(CheckpointError, match=r"system\.npz: there is no such checkpoint"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "checkpoint.npz").unlink()
    with pytest.raises(RunFolderError, match="has no checkpoint yet"):
        load_run(tmp_path / "run")


# physical systems


def test_what_a_plant_learned_comes_back_as_its_substrate(tmp_path):
    net = SYSTEMS["resistors of a graph"]()
    plant = Plant(net, 0.05, inputs=2)
    x, y = np.array([[1.0, 0.0], [0.2, 0.5]]), np.array([[0.4], [0.3]])
    rule = AgnosticEP(0.1, homeostat=SelfControl())
    run = fit(plant, rule, (x, y), epochs=3, key=KEY, progress=False, out=tmp_path / "run")
    again = load_run(tmp_path / "run")
    np.testing.assert_allclose(again.substrate.conductance, plant.substrate.conductance, rtol=1e-12)
    assert np.any(np.abs(again.substrate.conductance - net.conductance) > 1e-4)
    np.testing.assert_allclose(again.predict(x).outputs, run.predict(x).outputs, rtol=1e-12)
    other = Plant(net, 0.05, inputs=2)
    put = load_run(tmp_path / "run", like=other)
    assert put.substrate is other
    np.testing.assert_allclose(other.read().parameters, plant.read().parameters, atol=1e-6)
    np.testing.assert_allclose(put.predict(x).outputs, run.predict(x).outputs, atol=1e-4)


def test_a_physical_system_has_to_be_there(tmp_path):
    x = np.random.default_rng(3).normal(size=(6, 3))
    box = SpringScale([0.4, -0.7, 1.1])
    fit(box, AgnosticEP(0.5), (x, x[:, :1]), epochs=1, key=KEY, progress=False, out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="it stands on a bench, and no file can build it; give like="):
        load_run(tmp_path / "run")
    other = SpringScale([0.0, 0.0, 0.0])
    run = load_run(tmp_path / "run", like=other)
    np.testing.assert_allclose(other.read().parameters, box.read().parameters, atol=1e-6)
    outputs = run.predict(x).outputs
    np.testing.assert_allclose(outputs[:, 0], x @ other.read().parameters, atol=1e-3)
    with pytest.raises(CheckpointError, match="knobs is"):
        load_run(tmp_path / "run", like=SpringScale([0.0, 0.0]))
    with pytest.raises(ValueError, match="batch_size: wanted none for a physical system"):
        run.predict(x, batch_size=2)


# labels


@pytest.mark.parametrize("kind", [np.asarray, list, lambda names: np.asarray(names, object)])
def test_names_as_labels_are_encoded_and_come_back(tmp_path, kind):
    x, labels, _ = flowers()
    names = NAMES[labels]
    run = trained(tmp_path / "run", (x, kind(names)), epochs=20, validation=(x[:4], kind(names[:4])))
    assert run.classes == ("ash", "elm", "oak")
    assert run.history["validation_error"][-1] == 0
    found = run.predict(x)
    np.testing.assert_array_equal(found.labels, names)
    assert "outputs and labels of 30 examples, 0 unconverged" in str(found)
    again = load_run(tmp_path / "run")
    assert again.classes == run.classes
    np.testing.assert_array_equal(again.predict(x).labels, names)
    np.testing.assert_array_equal(np.asarray(again.classes)[again.data.train[1]], names)
    by_number = trained(None, (x, np.argsort(np.argsort(NAMES))[labels]), epochs=20)
    same(by_number.substrate, run.substrate)


def test_names_that_no_training_example_has_are_refused():
    x, labels, _ = flowers()
    names = NAMES[labels]
    with pytest.raises(ValueError, match="validation: 'fir' is a label of no training example"):
        trained(None, (x, names), validation=(x[:2], np.array(["oak", "fir"])))
    with pytest.raises(ValueError, match="test: wanted names as labels"):
        trained(None, (x, names), test=(x, labels))
    with pytest.raises(ValueError, match="test: wanted labels like those of the training examples, got names"):
        trained(None, (x, labels), test=(x, names))
    with pytest.raises(ValueError, match="data: 2 classes want as many outputs, and the system has 3"):
        trained(None, (x[labels < 2], names[labels < 2]), batch_size=5)


# predictions


def test_predictions_are_the_free_outputs_and_their_labels():
    x = flowers(np.float64)[0]
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    net = LinearResponse(weight, jnp.asarray([0.1, 0.2, 0.3]))
    wanted = x @ np.asarray(weight).T + np.array([0.1, 0.2, 0.3])
    for batch in (None, 1, 7, 30):
        found = predict(net, x, classes=NAMES, batch_size=batch)
        np.testing.assert_allclose(found.outputs, wanted, rtol=1e-13)
        np.testing.assert_array_equal(found.labels, NAMES[wanted.argmax(axis=1)])
        assert found.converged.all()
        assert found.converged.shape == (30,)
    assert predict(net, x).labels is None
    np.testing.assert_array_equal(predict(net, x.tolist()).outputs, predict(net, x).outputs)
    assert str(found) == "outputs and labels of 30 examples, 0 unconverged"


def test_what_did_not_settle_is_marked():
    x, _, _ = flowers(np.float64)
    net = LinearResponse(jnp.eye(3), jnp.zeros(3), jnp.asarray(0.5))
    np.testing.assert_array_equal(predict(net, x).converged, x[:, 0] <= 0.5)


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (np.zeros(2), {}, r"x: wanted shape \(n, 2\), .* got \(2,\): add a leading axis, x\[None\]"),
        (np.zeros((3, 5)), {}, r"x: wanted shape \(n, 2\), .* got \(3, 5\)"),
        (np.zeros((0, 2)), {}, "x: wanted at least one example, got none"),
        (1.0, {}, r"x: wanted shape \(n, 2\)"),
        (None, {}, r"x: wanted shape \(n, 2\), .* got no array"),
        (np.full((1, 2), np.nan), {}, "x: wanted finite numbers"),
        ([[1.0, 2.0], [3.0]], {}, "x: wanted as many numbers for each example"),
        ([[1.0, "b"]], {}, "x: wanted as many numbers for each example"),
        ([1.0, 2.0], {}, "add a leading axis"),
        (np.zeros((1, 2)), {"classes": ["a", "b"]}, "classes: wanted one for each output, 1, got 2"),
        (np.zeros((1, 2)), {"batch_size": 0}, "batch_size: wanted at least 1"),
        (np.zeros((1, 2)), {"homeostat": AgnosticEP(0.1).homeostat}, "homeostat: ResistorNetwork holds its param"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, options, words):
    with pytest.raises(ValueError, match=words):
        predict(SYSTEMS["resistors of a graph"](), x, **options)
    with pytest.raises(TypeError, match="substrate: wanted a Substrate or a PhysicalSystem, got int"):
        predict(3, np.zeros((1, 2)))


def test_inputs_that_do_not_fit_a_bench_are_refused():
    plant = Plant(SYSTEMS["resistors of a graph"](), 0.1)
    for x, words in (
        (np.zeros(2), r"x: wanted shape \(n, 2\), got \(2,\): add a leading axis, x\[None\]"),
        (np.zeros((3, 5)), r"x: wanted shape \(n, 2\), got \(3, 5\)"),
        (np.zeros((0, 2)), "x: wanted at least one example, got none"),
        (None, r"x: wanted shape \(n, 2\), got \(\)"),
    ):
        with pytest.raises(ValueError, match=words):
            predict(plant, x)


def test_maps_need_not_be_flattened():
    net = PredictiveCodingNetwork.convolutional((4, 4, 2), (3,), (2,), key=jax.random.key(0))
    maps = np.random.default_rng(0).normal(size=(5, 4, 4, 2))
    np.testing.assert_array_equal(predict(net, maps).outputs, predict(net, maps.reshape(5, -1)).outputs)


def test_a_run_can_be_pickled(tmp_path):
    run = trained(tmp_path / "run")
    again = pickle.loads(pickle.dumps(run))
    same(run.substrate, again.substrate)
    x = flowers()[0]
    np.testing.assert_array_equal(again.predict(x).outputs, run.predict(x).outputs)


def test_a_loaded_run_took_the_seconds_that_the_run_reported(tmp_path):
    run = trained(tmp_path / "run")
    assert load_run(tmp_path / "run").seconds == run.seconds


def test_damaged_seconds_are_told_and_keep_nobody_from_what_was_learned(tmp_path):
    run = trained(tmp_path / "run")
    (tmp_path / "run" / "times.json").write_text('{"epoch_seconds": 3}')
    with pytest.warns(UserWarning, match=r"times.json: damaged .*all else of the run is whole"):
        found = load_run(tmp_path / "run")
    same(found.substrate, run.substrate)
    assert found.seconds == run.seconds
    assert np.isnan(found.epoch_seconds).tolist() == [True] * 4
    np.testing.assert_array_equal(found.history["cost"], run.history["cost"])
    (tmp_path / "run" / "summary.json").write_text("{")
    with pytest.warns(UserWarning, match="times.json"):
        assert load_run(tmp_path / "run").seconds == 0


@pytest.mark.parametrize("file", ["data.npz", "system.npz"])
@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_data_and_systems_that_are_gone_are_told_and_written_again(tmp_path, file, damage):
    run = trained(tmp_path / "run")
    path = tmp_path / "run" / file
    path.unlink() if damage == "lost" else path.write_bytes(path.read_bytes()[:-20])
    words = "there is no such checkpoint" if damage == "lost" else "truncated or damaged, or no checkpoint"
    told = rf"{file}: {words}; remove system\.npz and data\.npz, and resume the run as it was started"
    with pytest.raises(CheckpointError, match=told):
        load_run(tmp_path / "run").data  # noqa: B018
    for name in ("system.npz", "data.npz"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    trained(tmp_path / "run", resume=True)
    again = load_run(tmp_path / "run")
    same(run.substrate, again.substrate)
    same(list(run.data), list(again.data))


def test_without_its_checkpoint_a_run_is_not_given_untrained(tmp_path):
    """system.npz is the system before training."""
    trained(tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.npz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_run(tmp_path / "run")
