"""`haloflow view` in a browser: the page works, and maps lie on the image that they were made from."""

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from pipeline.viewing.scene import MAP_COLOURS, scene
from pipeline.viewing.server import served
from tests.viewed import DOTS, dotted

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium and chromedriver here (Debian's packages chromium, chromium-driver)"
)

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --use-angle=swiftshader --enable-unsafe-swiftshader --disable-quic "
    "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage "
    "--window-size=1400,900"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def shot(browser: webdriver.Chrome, *layers: str) -> Any:
    """The picture (y, x, rgb) of the pane once all is drawn: of these layers alone, or of those shown at first."""
    browser.execute_script(
        "const names = arguments[0];"
        "const layers = names.length ? viewer.layerManager.managedLayers : [];"
        "for (const layer of layers) layer.setVisible(names.includes(layer.name));",
        layers,
    )
    end = time.monotonic() + 60
    while not browser.execute_script("return viewer.isReady()"):
        assert time.monotonic() < end, "the viewer does not get ready"
        time.sleep(0.1)
    box = browser.execute_script(
        "viewer.display.draw();"
        "const b = document.querySelector('.neuroglancer-rendered-data-panel').getBoundingClientRect();"
        "return [b.left, b.top, b.right, b.bottom];"
    )
    image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture = np.asarray(image.crop(tuple(round(v) for v in box)), np.int32).copy()
    picture[:40, :], picture[-60:, :150], picture[:80, :30] = 0, 0, 0  # buttons, the scale bar, the axes' names
    return picture


def boxes(mask: Any) -> list[tuple[float, float, float, float]]:
    """The boxes (top, left, bottom, right) of the parts that hang together, from the top."""
    from scipy import ndimage  # noqa: PLC0415

    labels, _ = ndimage.label(mask)
    found = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndimage.find_objects(labels)]
    return sorted(box for box in found if (box[2] - box[0]) * (box[3] - box[1]) >= 9)


def near(picture: Any, colour: tuple[int, ...]) -> Any:
    return np.abs(picture - colour).max(axis=-1) < 40


@pytest.mark.parametrize(
    ("dtype", "plain"),
    [("float32", False), ("float32", True), ("float16", False), ("uint8, range: [-1, 1]", True)],
    ids=["micrometres", "plain image", "decoded here", "scaled"],
)
def test_a_dot_lies_where_it_lies_in_the_image(
    browser: webdriver.Chrome, tmp_path: Path, dtype: str, *, plain: bool
) -> None:
    found = scene(str(dotted(tmp_path, dtype=dtype, plain=plain)))
    with served(found) as page:
        browser.get(page.url)
        image = shot(browser, "dots")
        pooled = shot(browser, "dots/pool/middle")
        match = shot(browser, "dots/match/middle")
        both = shot(browser, "dots", "dots/pool/middle")
        browser.get("about:blank")
    red = tuple(int(MAP_COLOURS[0][n : n + 2], 16) for n in (1, 3, 5))
    dots, cells, matched = boxes(near(image, (255, 255, 255))), boxes(near(pooled, red)), boxes(near(match, red))
    assert len(dots) == len(cells) == len(matched) == len(DOTS)
    zoom = (dots[1][0] - dots[0][0]) / (DOTS[1][0] - DOTS[0][0])  # screen pixels a pixel of the image, along y
    wide = (dots[1][1] - dots[0][1]) / (DOTS[1][1] - DOTS[0][1])
    assert zoom > 5
    for (y, x), dot, cell, place in zip(DOTS, dots, cells, matched, strict=True):
        # the convolution has its centre on the dot; the pool's cell holds the match's pixels 2k and 2k + 1
        assert np.allclose(place, dot, atol=1)
        top, left = ((n - 1) // 2 * 2 + 1 for n in (y, x))
        expected = (
            dot[0] + (top - y) * zoom,
            dot[1] + (left - x) * wide,
            dot[0] + (top - y + 2) * zoom,
            dot[1] + (left - x + 2) * wide,
        )
        assert np.allclose(cell, expected, atol=1.5)
    assert len(boxes(near(both, red))) == len(DOTS)
    assert near(both, red).sum() == near(pooled, red).sum()


def test_the_first_sight_shows_the_map_over_the_image(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Nothing is clicked: image and maps are there, and only this machine was asked for anything."""
    found = scene(str(dotted(tmp_path, dtype="float32", plain=False)))
    browser.get_log("performance")  # of the browser's own first page
    with served(found) as page:
        browser.get(page.url)
        picture = shot(browser)
        listed = browser.execute_script("return viewer.layerManager.managedLayers.map(la => [la.name, la.visible])")
        browser.get("about:blank")
    assert len(boxes(near(picture, tuple(int(MAP_COLOURS[0][n : n + 2], 16) for n in (1, 3, 5))))) == len(DOTS)
    assert listed == [[layer.name, layer.visible] for layer in found.layers]
    asked = [entry["message"] for entry in browser.get_log("performance")]
    urls = {part.split('"')[0] for m in asked for part in m.split('"url":"')[1:]}
    assert any("/data/" in url for url in urls)
    assert not [u for u in urls if u.startswith(("http", "ws")) and not u.startswith("http://127.0.0.1:")]
