"""What `haloflow view` shows of a store or an image, and how its pixels come to the browser."""

import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numcodecs
import numpy as np
import pytest
import zarr

from pipeline.viewing.scene import Scene, scene
from pipeline.viewing.server import served
from tests.viewed import dotted


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dotted(tmp_path_factory.mktemp("view"), dtype="float32", plain=False)


def names(found: Scene) -> list[str]:
    return [layer.name for layer in found.layers]


def test_maps_lie_over_their_image(store: Path) -> None:
    found = scene(str(store))
    assert names(found) == ["dots", "dots/match/middle", "dots/match/around", "dots/pool/middle", "dots/pool/around"]
    assert [la.is_map for la in found.layers] == [False, True, True, True, True]
    assert [la.visible for la in found.layers] == [True, False, False, True, True]
    assert {la.root.path for la in found.layers} == {store, store.parent / "dots.zarr"}
    assert not found.notes


def test_the_input_is_found_from_elsewhere(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The run named its paths relative to where it ran."""
    monkeypatch.chdir(tmp_path)
    zarr.create_array(tmp_path / "dots.zarr", shape=(2, 2), chunks=(2, 2), dtype="u1")  # not the one that was read
    assert scene(str(store)).layers[0].root.path.resolve() == (store.parent / "dots.zarr").resolve()


def test_a_store_whose_input_is_gone_is_shown_without_it(tmp_path: Path) -> None:
    made = dotted(tmp_path, dtype="float32", plain=False)
    (tmp_path / "dots.zarr").rename(tmp_path / "moved.zarr")
    found = scene(str(made))
    assert all(la.is_map for la in found.layers)
    assert found.notes == ("dots.zarr: is not there any more; its maps are shown without it",)


@pytest.mark.parametrize(
    ("dtype", "made", "plain"),
    [
        ("uint8", {}, True),
        (">i4", {}, True),
        ("float32", {"shards": (8, 8)}, True),
        ("float64", {}, False),
        ("float16", {}, False),
        ("int64", {}, False),
        ("bool", {}, False),
        ("uint16", {"zarr_format": 2}, True),
        (">f4", {"zarr_format": 2, "order": "F"}, True),
        ("uint16", {"zarr_format": 2, "compressors": "bz2"}, False),
    ],
)
def test_what_a_browser_cannot_read_is_decoded_here(
    tmp_path: Path, dtype: str, made: dict[str, Any], *, plain: bool
) -> None:
    if made.get("compressors"):
        made = {**made, "compressors": numcodecs.BZ2()}
    array = zarr.create_array(tmp_path / "im.zarr", shape=(16, 12), chunks=(4, 4), dtype=dtype, **made)
    array[:] = np.arange(192).reshape(16, 12) % 2 if dtype == "bool" else np.arange(192).reshape(16, 12) / 2
    found = scene(str(tmp_path / "im.zarr"))
    assert [layer.is_plain for layer in found.layers] == [plain]
    with served(found) as page:
        source = page.state["layers"][0]["source"]
        assert source["transform"]["matrix"] == [[1, 0, -0.5], [0, 1, -0.5]]
        assert source["url"].startswith("http://127.0.0.1:" if plain else "python://volume/")
        if not plain:
            key = source["url"].removeprefix("python://volume/")
            host = page.url.partition("/v/")[0]
            with urlopen(f"{host}/neuroglancer/npz/{key}/1,1/2,3/6,9") as reply:  # noqa: S310 - loopback
                body = reply.read()
            expected = np.asarray(array[2:6, 3:9], np.float32)
            assert np.array_equal(np.load(io.BytesIO(zlib.decompress(body))), expected)
    json.dumps(page.state, allow_nan=False)


@pytest.mark.parametrize(
    "said",
    [
        {"channels": 7},
        {"channels": [3]},
        {"channels": [{"window": 4, "color": "javascript:"}]},
        {"channels": [{"window": {"start": "a", "end": 9}, "color": "}; void main("}]},
        {"channels": [{"window": {"start": 9, "end": 9, "min": 1e400, "max": 0}}]},
        [],
    ],
)
def test_contrast_that_makes_no_sense_is_not_believed(tmp_path: Path, said: Any) -> None:
    dotted(tmp_path, dtype="float32", plain=False)
    group = zarr.open_group(tmp_path / "dots.zarr")
    group.attrs["ome"] = {**group.attrs["ome"], "omero": said}  # type: ignore[dict-item]
    layer = scene(str(tmp_path / "dots.zarr")).layers[0]
    assert (layer.contrast, layer.window, layer.colour) == ((0, 255), (0, 255), "#ffffff")


def test_pixels_without_a_number_have_a_contrast_all_the_same(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "im.zarr", shape=(4, 4), chunks=(4, 4), dtype="f4")
    array[:] = np.nan
    assert scene(str(tmp_path / "im.zarr")).layers[0].contrast == (0.0, 1.0)


def test_a_store_without_maps_says_so(small: Path, haloflow: Callable[..., tuple[int, str, str]]) -> None:
    tables = ("--set", "output.summaries={}")
    assert haloflow("run", "config.yaml", "--cluster", "serial", *tables)[0] == 0
    code, _, err = haloflow("view", "maps.zarr")
    assert (code, "maps.zarr: has no maps to show, only tables" in err) == (2, True)
