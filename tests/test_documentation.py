"""The documentation: its examples run, what makes its pages is right, and it builds without a warning."""

import html
import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jaxtyping import Array, Float, PRNGKeyArray

from substrates import explained

pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in sorted(DOCS.glob("*.md"))
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL), 1)
]

sys.path.insert(0, str(DOCS / "extensions"))
import docstrings  # noqa: E402
import pages  # noqa: E402
from sphinx.util.inspect import stringify_signature  # noqa: E402


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code):
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})


def test_each_kind_of_plug_in_has_an_example():
    assert {"substrate-1", "rule-1", "machine-1"} <= {example.id for example in EXAMPLES}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("The max-norm |r| of r, *weighed*.", r"The max-norm \|r\| of r, \*weighed\*."),
        ("`fit(net, rule)` trains x_k and rho_.", r"``fit(net, rule)`` trains x_k and rho\_."),
        ("Takes ``key=`` and `Nudge`s.", r"Takes ``key=`` and ``Nudge``\s."),
    ],
)
def test_prose_has_no_markup_but_code(written, shown):
    assert docstrings.restructured([written]) == [shown, ""]


def test_formulas_stay_as_they_are_inside_sections_too():
    lines = [
        "A flow,",
        "",
        "    ds/dt = -|s|^2 s*,",
        "    of x_.",
        "",
        "where s is *it*.",
        "",
        "Args:",
        "    x: such as",
    ]
    assert docstrings.restructured([*lines, "        |x|."]) == [
        "A flow,",
        "",
        "::",
        "",
        "    ds/dt = -|s|^2 s*,",
        "    of x_.",
        "",
        r"where s is \*it\*.",
        "",
        "Args:",
        "    x: such as",
        r"        \|x\|.",
        "",
    ]


def test_signatures_have_the_names_that_one_would_import():
    def of(x: Float[Array, "batch outputs"], key: PRNGKeyArray | None = None) -> Float[np.ndarray, "n"]: ...

    shown = docstrings.readable(stringify_signature(inspect.signature(of), unqualified_typehints=True))
    assert "Float[Array, 'batch outputs']" in shown
    assert "key: PRNGKeyArray | None = None" in shown
    assert "jaxlib" not in shown
    assert docstrings.readable(None) is None
    of_attributes = ":vartype cost: collections.abc.Callable[[jax.jaxlib._jax.Array, Any], jax.jaxlib._jax.Array]"
    assert docstrings.readable(of_attributes) == ":vartype cost: collections.abc.Callable[[Array, Any], Array]"


def test_options_under_a_sentence_are_a_list():
    lines = [
        "Inputs act:",
        '    "force": on',
        "        all.",
        '    "anchor": f_a.',
        "",
        "Args:",
        "    x: on",
        "        one.",
    ]
    assert docstrings.restructured(lines) == [
        "Inputs act:",
        "",
        '    - "force": on',
        "      all.",
        '    - "anchor": f_a.',
        "",
        "Args:",
        "    x: on",
        "        one.",
        "",
    ]


def test_tables_are_tables():
    lines = ["Kinds:", "", "| name | bias |", "|---|---|", "| `a` | O(beta) |", "| b | |"]
    assert docstrings.restructured(lines) == [
        "Kinds:",
        "",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - name",
        "     - bias",
        "   * - ``a``",
        "     - O(beta)",
        "   * - b",
        "     -",
        "",
        "",
    ]


def test_a_proof_that_fails_is_a_warning(monkeypatch, caplog):
    theorem = pages.ALL[[each.name for each in pages.ALL].index("sandwich-bounds")]
    with caplog.at_level(logging.WARNING):
        honest = pages.theorem_page(theorem)
    assert not caplog.records
    assert theorem.statement in honest
    assert honest.count("$$") == 2 * len(pages.prove(theorem.name).steps)
    fault = next(iter(pages.PROOFS[theorem.name].faults))
    prove = pages.prove
    monkeypatch.setattr(pages, "prove", lambda name: prove(name, fault))
    with caplog.at_level(logging.WARNING):
        pages.theorem_page(theorem)
    assert "the proof of sandwich-bounds fails in step" in caplog.text


def test_every_theorem_is_listed():
    listed = pages.theorem_list()
    for theorem in pages.ALL:
        assert f"({theorem.name}.md)" in listed


def test_every_figure_of_a_notebook_is_in_the_gallery(tmp_path):
    page = pages.gallery(tmp_path)
    drawn = sum(path.read_text().count('"image/png": "') for path in pages.NOTEBOOKS)
    assert drawn > 0
    assert page.count("```{figure}") == drawn
    for name in re.findall(r"\{figure\} figures/(\S+)", page):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_all_public_names_are_in_the_reference():
    for package, about in pages.PACKAGES.items():
        page = pages.api_page(package, about)
        for name in pages.public_names(package):
            assert f":: {package}.{name}\n" in page


@pytest.mark.slow
def test_it_builds_without_a_warning(tmp_path):
    """And shapes, proofs and figures are in it."""
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    text = lambda page: re.sub(r"<[^>]+>", "", (tmp_path / "html" / page).read_text())
    assert "Plug in a substrate" in text("index.html")
    reference = html.unescape(text("generated/api/learning.html"))
    assert "Float[Array, 'batch outputs']" in reference
    assert "jaxlib" not in reference
    assert r"\[" in text("generated/theorems/bias-orders.html")
    for address in (value for name, value in vars(explained).items() if name.isupper() and name[0] != "_"):
        page, _, anchor = address.removeprefix("docs/").partition("#")
        assert f'id="{anchor}"' in (tmp_path / "html" / page).with_suffix(".html").read_text()
    for path in pages.NOTEBOOKS:
        page = (tmp_path / "html" / "generated" / "notebooks" / f"{path.stem}.html").read_text()
        assert page.count("<img") >= path.read_text().count('"image/png": "')
