"""The commands that show a run, open the notebooks and write a system to start from."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import matplotlib.image
import numpy as np
import optax
import pytest
from linear_response import PLUGIN

from learning import EquilibriumPropagation, fit, list_command, notebook_command
from learning.options import UsageError
from learning.show_command import draw_run
from substrates import HopfieldNetwork

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def trained(command):
    code, out, _ = command("train", PLUGIN, "--data", "iris", "--out", "run", "--quiet")
    assert (code, out) == (0, "run\n")
    return Path("run")


@pytest.fixture(scope="module")
def hopfield_run():
    net = HopfieldNetwork.layered((3, 4, 2), key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(6, 3))
    rule = EquilibriumPropagation(beta=0.1)
    data = (x, np.arange(6) % 2)
    return fit(net, rule, data, optimiser=optax.sgd(0.01), epochs=3, batch_size=3, key=jax.random.key(1))


def test_show_draws_the_run_into_its_folder(command, trained):
    code, out, err = command("show", trained)
    assert (code, err) == (0, "")
    assert Path(out.splitlines()[-1]) == trained / "figures" / "run.png"
    image = matplotlib.image.imread(trained / "figures" / "run.png")[..., :3]
    assert image.std() > 0.02


def test_show_writes_the_kind_of_file_that_is_asked_for(command, trained):
    code, out, _ = command("show", trained, "--out", "figures/of it.svg")
    assert code == 0
    assert out.splitlines()[-1] == "figures/of it.svg"
    assert "<svg" in Path("figures/of it.svg").read_text()
    code, _, err = command("show", trained, "--out", "run.xyz")
    assert code == 2
    assert "xyz" in err


def test_show_says_that_there_is_no_run(command):
    code, _, err = command("show", "nowhere")
    assert code == 2
    assert "there is no run in nowhere" in err


def test_a_drawn_run_has_its_history_and_its_system_at_rest(hopfield_run, monkeypatch):
    drawn = []
    monkeypatch.setattr(HopfieldNetwork, "draw", lambda self, state, x, ax: drawn.append((self, state, x)))
    figure, note = draw_run(hopfield_run, 4)
    assert note == ""
    curve, _ = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in curve.lines}
    np.testing.assert_array_equal(lines["cost"], hopfield_run.history["cost"])
    np.testing.assert_array_equal(lines["error"], hopfield_run.history["error"])
    ((system, state, x),) = drawn
    np.testing.assert_array_equal(x, hopfield_run.data.train[0][4])
    assert system.residual(state, x) < 1e-6


def test_a_system_that_draws_itself_is_drawn(hopfield_run):
    figure, _ = draw_run(hopfield_run)
    assert len(figure.axes) >= 2
    assert figure.axes[1].has_data()


def test_a_system_whose_data_are_lost_is_drawn_without_an_input(hopfield_run, tmp_path):
    figure, note = draw_run(replace(hopfield_run, given=None, folder=tmp_path))
    assert figure.axes[1].has_data()
    assert "The system is drawn without an input: " in note
    assert "there is no such checkpoint; remove system.npz and data.npz" in note


def test_show_knows_how_many_examples_there_are(hopfield_run):
    with pytest.raises(UsageError, match="a number below 6"):
        draw_run(hopfield_run, 6)


def test_list_says_how_large_a_substrate_is_and_how_it_learns(command, monkeypatch):
    weights, biases = 64 * 256 + 256 * 10, 256 + 10
    monkeypatch.setitem(KINDS, "broken", NotBuilt)
    monkeypatch.setattr(list_command.catalogue, "names", lambda group: KINDS if group.endswith("substrates") else {})
    find = list_command.catalogue.find
    monkeypatch.setattr(list_command.catalogue, "find", lambda group, name: KINDS.get(name) or find(group, name))
    code, out, _ = command("list")
    assert code == 0
    _, hopfield, broken, *_ = out.splitlines()
    assert "layers of units that settle together" in hopfield
    assert f"{weights + biases:,} parameters for the digits" in hopfield
    assert "learns by nudges of 0.5, sgd, 40 epochs in 32 bits" in hopfield
    assert broken.endswith("A kind; cannot be built for the digits: no springs")


class NotBuilt:
    """A kind."""

    @classmethod
    def for_task(cls, n_inputs, n_outputs, *, sizes=None, key):
        raise ValueError("no springs")


KINDS = {"hopfield": HopfieldNetwork}


@pytest.fixture
def started(monkeypatch):
    """What would have been started, a command after another."""
    calls = []
    answer = lambda words: calls.append(words) or SimpleNamespace(returncode=0)
    monkeypatch.setattr(notebook_command.subprocess, "run", answer)
    return calls


def test_notebook_opens_the_folder_or_one_of_them(command, started):
    assert command("notebook")[0] == 0
    assert command("notebook", "03", "--", "--no-browser", "--port", "9999")[0] == 0
    assert command("notebook", "--", "--no-browser")[0] == 0
    jupyter = [sys.executable, "-m", "jupyterlab"]
    assert started == [
        [*jupyter, str(ROOT / "notebooks")],
        [*jupyter, str(ROOT / "notebooks" / "03-ising.ipynb"), "--no-browser", "--port", "9999"],
        [*jupyter, str(ROOT / "notebooks"), "--no-browser"],
    ]


def test_notebook_prefers_the_folder_at_hand(command, started):
    Path("notebooks").mkdir()
    Path("notebooks/01-mine.ipynb").touch()
    assert command("notebook", "01")[0] == 0
    assert started[0][-1] == "notebooks/01-mine.ipynb"


def test_notebook_lists_their_names(command):
    code, out, _ = command("notebook", "--list")
    assert code == 0
    assert out.split() == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(("name", "said"), [("elastic", "02-elastic"), ("0", "03-ising")])
def test_notebook_says_which_there_are(command, started, name, said):
    code, _, err = command("notebook", name)
    assert code == 2
    assert said in err
    assert not started


def test_notebook_says_what_to_install(command, started, monkeypatch):
    monkeypatch.setattr(notebook_command.importlib.util, "find_spec", lambda name: None)
    code, _, err = command("notebook")
    assert code == 2
    assert 'pip install ".[notebooks]"' in err
    assert not started


def test_notebook_says_that_there_are_none(command, monkeypatch):
    monkeypatch.setattr(notebook_command, "PLACES", (Path("nowhere"),))
    code, _, err = command("notebook")
    assert code == 2
    assert "nowhere" in err


@pytest.mark.slow
def test_notebook_starts_jupyterlab(tmp_path):
    words = ["notebook", "01", "--", "--no-browser", "--port=0", "--allow-root", "--ServerApp.token=x"]
    program = f"import sys; from learning import cli; sys.exit(cli.main({words}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                address = re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/", line)
                if address:
                    break
            else:
                pytest.fail("".join(said))
            assert b"Quickstart" in _answer(f"{address[0]}api/contents/01-quickstart.ipynb?token=x")
        finally:
            os.killpg(process.pid, 15)


def _answer(address, seconds=60):
    """What a server says, which tells where it listens a moment before it does."""
    ends = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=seconds) as answer:
                return answer.read()
        except urllib.error.URLError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


def test_new_writes_what_ruff_and_python_accept(command):
    code, out, err = command("new", "substrate", "my_system.py")
    assert (code, err) == (0, "")
    assert "groundstate train my_system.py:MySystem --data iris" in out
    written = ["my_system.py", "test_my_system.py"]
    for name in written:
        text = Path(name).read_text()
        compile(text, name, "exec")
        assert "CLASS" not in text
        assert "MODULE" not in text
    rules = ["--select=E,F,I,B,UP,RUF", "--ignore=F722,F821,UP037"]  # shapes are strings
    for words in (["check", *rules], ["format", "--check"]):
        words = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length=120", *written]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_new_writes_into_a_folder_that_it_makes(command):
    code, out, _ = command("new", "substrate", "springs/two_masses.py")
    assert code == 0
    assert "groundstate train springs/two_masses.py:TwoMasses" in out
    assert "from two_masses import TwoMasses" in Path("springs/test_two_masses.py").read_text()


def test_new_overwrites_nothing(command):
    Path("test_my_system.py").write_text("mine")
    code, _, err = command("new", "substrate", "my_system.py")
    assert code == 2
    assert "test_my_system.py is there already" in err
    assert not Path("my_system.py").exists()
    assert Path("test_my_system.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["my-system.py", "my_system", "class.py", "_.py", "json.py", "optax.py"])
def test_new_wants_a_name_that_can_be_imported(command, name):
    code, _, err = command("new", "substrate", name)
    assert code == 2
    assert err.startswith("groundstate: error: file: ")
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_a_new_system_passes_its_test_and_a_broken_one_does_not(command):
    command("new", "substrate", "my_system.py")
    assert _tested() == 0
    text = Path("my_system.py").read_text()
    broken = text.replace("    @classmethod\n", BROKEN_FORCE + "    @classmethod\n")
    assert broken != text
    Path("my_system.py").write_text(broken)
    assert _tested() == 1


BROKEN_FORCE = """\
    def force(self, state: State, x: Float[Array, "inputs"]) -> State:
        hidden, output = state
        push = self.weight @ x + self.bias + self.coupling.T @ output
        return push - hidden - hidden**3, 2 * self.coupling @ hidden - output - output**3

"""


def _tested():
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_system.py"]
    return subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True).returncode


@pytest.mark.slow
def test_a_new_system_trains_from_the_command_line(command):
    command("new", "substrate", "my_system.py")
    code, _, err = command("train", "my_system.py:MySystem", "--data", "iris", "--epochs", "3", "--out", "run")
    assert (code, err) == (0, "")
    assert command("show", "run")[0] == 0
