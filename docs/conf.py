"""The documentation: `python -m sphinx -W docs docs/_build`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "extensions"), str(Path(__file__).parent.parent)]

project = "Groundstate"
author = "The Groundstate authors"
copyright = author
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "docstrings",
    "pages",
]
exclude_patterns = ["_build", "jupyter_execute"]  # the latter is what myst-nb writes

suppress_warnings = ["ref.python"]  # axes in the shapes of annotations look like names of attributes

highlight_language = "none"  # indented blocks are formulas

html_theme = "furo"
html_title = "Groundstate"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_use_ivar = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
