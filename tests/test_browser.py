"""JupyterLab in a real browser: the first cells of the quickstart run, sliders move, pictures change."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jupyterlab", reason="JupyterLab is missing: pip install 'groundstate[notebooks]'")
pytest.importorskip("selenium", reason="Selenium is missing: pip install 'groundstate[test]'")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parent.parent
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1400,1500"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium, chromium-driver are missing (Debian packages)"),
]
PATIENCE = 900
"""Seconds: a crowded machine takes minutes to start a kernel."""
SEEN = os.environ.get("GROUNDSTATE_SCREENSHOTS")
"""A folder for screenshots, for those who want to look at them."""


def until(what, found, patience=PATIENCE):
    """What `found` returns, once it is there."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {patience} s")


def look(browser, name):
    """What is on the screen, as pixels."""
    shot = browser.get_screenshot_as_png()
    if SEEN:
        (Path(SEEN) / f"{name}.png").write_bytes(shot)
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    look(driver, "at the end")
    driver.quit()


def first_cells():
    """The quickstart up to where it explores, as a notebook of its own."""
    book = json.loads((ROOT / "notebooks/01-quickstart.ipynb").read_text())
    sources = ["".join(cell["source"]) for cell in book["cells"]]
    last = next(
        k for k, source in enumerate(sources) if "explore(" in source and book["cells"][k]["cell_type"] == "code"
    )
    wanted = [k for k in range(last + 1) if k <= 3 or k >= last - 1]
    cells = [{**book["cells"][k], **({"outputs": []} if "outputs" in book["cells"][k] else {})} for k in wanted]
    return {**book, "cells": cells}


@pytest.fixture
def laboratory(tmp_path):
    """The address of a JupyterLab that serves the first cells."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "first.ipynb").write_text(json.dumps(first_cells()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("config", "data", "runtime")
    places = {f"JUPYTER_{name.upper()}_DIR": str(tmp_path / name) for name in names} | {"IPYTHONDIR": str(tmp_path)}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += ["--IdentityProvider.token=", "--expose-app-in-browser", f"--ServerApp.root_dir={folder}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **places, "PYTHONPATH": path}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"

    def answers():
        assert server.poll() is None, (tmp_path / "log").read_text()
        try:
            return urllib.request.urlopen(f"{address}/api", timeout=5).status == 200
        except OSError:
            return False

    try:
        until("JupyterLab", answers)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def test_the_explorer_of_the_quickstart_moves_in_jupyterlab(browser, laboratory):
    browser.get(f"{laboratory}/lab/tree/first.ipynb")
    # run before its kernel is idle, a notebook forgets the command
    kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
    until("the kernel", lambda: browser.execute_script(f"return {kernel}") == "idle")
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def picture():
        assert not browser.find_elements(By.CSS_SELECTOR, "[data-mime-type='application/vnd.jupyter.stderr']")
        found = browser.find_elements(By.CSS_SELECTOR, "img.widget-image, .widget-image img")
        loaded = found and browser.execute_script("return arguments[0].naturalWidth", found[0])
        return found[0] if loaded else None

    shown = until("the explorer", picture)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", shown)
    handle = until("sliders", lambda: browser.find_elements(By.CSS_SELECTOR, ".noUi-handle"))[0]
    reading = lambda: browser.find_element(By.CSS_SELECTOR, ".widget-readout").text
    source = lambda: picture() and picture().get_attribute("src")
    time.sleep(1)
    before, seen, at_first = look(browser, "before"), source(), reading()
    for _ in range(12):
        handle.send_keys(Keys.ARROW_RIGHT)
    until("another picture", lambda: source() != seen and reading() != at_first, 60)
    time.sleep(2)
    after = look(browser, "after")
    box = shown.rect
    assert box["width"] > 300
    assert box["height"] > 150
    changed = np.abs(after - before).max(axis=-1) > 40
    assert 50 < changed.sum() < 0.5 * changed.size  # the picture and the slider, and no page that fell to pieces
    assert len(np.unique(after.reshape(-1, 3), axis=0)) > 200
    for number, tab in enumerate(browser.find_elements(By.CSS_SELECTOR, ".widget-tab .lm-TabBar-tab")[1:3], 1):
        tab.click()
        time.sleep(1)
        visible = [each for each in browser.find_elements(By.CSS_SELECTOR, ".noUi-handle") if each.is_displayed()]
        before_tab = source()
        for _ in range(12):
            visible[0].send_keys(Keys.ARROW_RIGHT)
        until(f"another picture, tab {number}", lambda seen=before_tab: source() != seen, 60)
        look(browser, f"tab {number}")


def test_pages_drawn_beforehand_turn_without_a_kernel(browser, tmp_path):
    code = (
        "import jax.numpy as jnp, numpy as np; from substrates import ResistorNetwork, explore_beforehand\n"
        "net = ResistorNetwork.from_edges([(0, 1), (1, 2), (0, 2)], 3, inputs=[0], outputs=[2], conductance=1.0,\n"
        "    rails={1: -0.5})\n"
        "grid = {'x[0]': np.linspace(-1, 1, 5), 'conductance[2]': [0.1, 1.0]}\n"
        f"explore_beforehand(net, [0.5], grid=grid).save({str(tmp_path / 'page.html')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    browser.get((tmp_path / "page.html").as_uri())
    sliders = until("sliders", lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=range]"), 30)
    assert len(sliders) == 2
    seen = set()
    for slider in sliders:
        slider.send_keys(Keys.ARROW_RIGHT)
        seen.add(browser.find_element(By.TAG_NAME, "img").get_attribute("src"))
    assert [output.text for output in browser.find_elements(By.TAG_NAME, "output")] == ["-0.5", "1"]
    assert len(seen) == 2
    assert len(np.unique(look(browser, "page").reshape(-1, 3), axis=0)) > 30
