"""Pictures drawn beforehand, one for every place of a few sliders: they turn where no Python runs."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from substrates.pictures.extras import needed

SCRIPT = Path(__file__).with_name("flipbook.js")
"""What turns the pages, in notebooks and on web pages alike."""

COLOURS_OF_A_PAGE = 64
"""A picture is stored with so many colours, a third of its size otherwise."""


@dataclasses.dataclass(frozen=True)
class Flipbook:
    """Pictures for every combination of the places of some sliders; one slider is an animation.

    Shows itself in notebooks and on web pages, without a kernel: `_repr_html_`. `widget` is the same with a kernel.

    Attributes:
        settings: for each slider, by name, what its places are called.
        pages: pictures in the PNG format, that of the last slider running fastest.
        milliseconds: between pages, where it plays.
    """

    settings: Mapping[str, tuple[str, ...]]
    pages: tuple[bytes, ...]
    milliseconds: int = 120

    @classmethod
    def drawn(cls, settings: Mapping[str, Sequence[Any]], draw: Callable[..., bytes], milliseconds: int = 120) -> Self:
        """Pictures of all combinations.

        Args:
            settings: for each slider, by name, its values.
            draw: a picture in the PNG format for one value of each.
            milliseconds: between pages, where it plays.
        """
        pages = tuple(draw(*values) for values in itertools.product(*settings.values()))
        names = {name: tuple(map(_shown, values)) for name, values in settings.items()}
        return cls(names, pages, milliseconds)

    def __repr__(self) -> str:
        sliders = ", ".join(f"{name} ({len(values)} places)" for name, values in self.settings.items())
        return f"Flipbook of {len(self.pages)} pictures over {sliders}"

    def _repr_html_(self) -> str:
        place = f"flipbook-{uuid.uuid4().hex}"
        facts = json.dumps(self._facts()).replace("</", "<\\/")
        first = self._facts()["frames"][0]
        return (
            f'<div id="{place}"><img alt="" src="data:image/png;base64,{first}"></div>\n<script type="module">\n'
            f"{SCRIPT.read_text()}\nconst facts = {facts};\n"
            f'render({{ model: {{ get: (name) => facts[name] }}, el: document.getElementById("{place}") }});\n</script>'
        )

    def widget(self) -> Any:
        """The pictures as a widget whose `place`, the numbers of the sliders' places, Python sees and sets.

        Raises ImportError where anywidget is missing.
        """
        return _widget_class()(**self._facts())

    def save(self, path: str | Path) -> Path:
        """Writes a GIF, where there is one slider, or a web page.

        Args:
            path: ends in ".gif" or ".html".

        Raises ValueError for another ending, and for a GIF of several sliders.
        """
        path = Path(path)
        if path.suffix == ".html":
            head = '<!doctype html>\n<meta charset="utf-8">\n<title>Groundstate</title>\n'
            path.write_text(f"{head}{self._repr_html_()}\n")
        elif path.suffix == ".gif":
            if len(self.settings) != 1:
                raise ValueError(f"path: a GIF has one slider, time; these are {len(self.settings)}: write .html")
            _write_gif(path, self.pages, self.milliseconds)
        else:
            raise ValueError(f"path: wanted a name that ends in .gif or .html, got {path.name!r}")
        return path

    def _facts(self) -> dict[str, Any]:
        return {
            "names": list(self.settings),
            "values": [list(values) for values in self.settings.values()],
            "frames": [base64.b64encode(_few_colours(page)).decode() for page in self.pages],
            "place": [0] * len(self.settings),
            "milliseconds": self.milliseconds,
        }


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _few_colours(page: bytes) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(page)).convert("RGB").quantize(COLOURS_OF_A_PAGE).save(file, "png", optimize=True)
    return file.getvalue()


def _write_gif(path: Path, pages: Sequence[bytes], milliseconds: int) -> None:
    from PIL import Image

    first, *others = [Image.open(io.BytesIO(page)).convert("RGB").quantize(COLOURS_OF_A_PAGE) for page in pages]
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)


@cache
def _widget_class() -> type:
    anywidget, traitlets = needed("notebooks", "anywidget", "traitlets")

    class Pages(anywidget.AnyWidget):
        _esm = SCRIPT
        names = traitlets.List().tag(sync=True)
        values = traitlets.List().tag(sync=True)
        frames = traitlets.List().tag(sync=True)
        place = traitlets.List().tag(sync=True)
        milliseconds = traitlets.Int().tag(sync=True)

    return Pages
