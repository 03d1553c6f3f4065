"""Normalised cross-correlation: against others where they are right, and where offsets and flat patches break them."""

import re

import cv2
import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import match_template

import pipeline
from pipeline.errors import StackError
from pipeline.geometry import Interval
from pipeline.kernels import BACKENDS, choose, kernel_for
from pipeline.layers import LAYERS
from pipeline.patches import deviation

OFFSET, FULL = 60_000, 65_535


def bind(*features, **params):
    named = {f"f{i}": np.asarray(values, float) for i, values in enumerate(features)}
    depth = params.pop("maps", 1)
    layer = LAYERS["convolution"](type="convolution", features=tuple(named), match="ncc", **params)
    return layer.bind("match", tuple(map(str, range(depth))), named)


def run(operation, image, backend):
    with np.errstate(all="ignore"):
        return kernel_for((operation,), backend)(np.asarray(image, np.float32))


def by_definition(image, feature, dilation=(1, 1), stride=(1, 1)):
    """Place by place in float64, (c, y, x) over (c, y, x)."""
    image, feature = image.astype(np.float64), np.broadcast_to(feature, (len(image), *feature.shape[-2:]))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, feature.shape[1:], strict=True)]
    rows, columns = (range(0, n - s + 1, t) for n, s, t in zip(image.shape[1:], spans, stride, strict=True))
    out = np.zeros((len(rows), len(columns)))
    for at, _ in np.ndenumerate(out):
        y, x = rows[at[0]], columns[at[1]]
        patch = image[:, y : y + spans[0] : dilation[0], x : x + spans[1] : dilation[1]]
        if np.ptp(patch):
            out[at] = np.corrcoef(patch.ravel(), feature.ravel())[0, 1]
    return out


@pytest.mark.parametrize("backend", ["numpy", "ncc"])
@pytest.mark.parametrize("size", [(3, 3), (4, 7), (1, 9), (16, 13), (33, 2)])
def test_agrees_with_scikit_image_and_opencv_where_they_are_right(size, backend):
    rng = np.random.default_rng(size)
    image, feature = rng.normal(size=(70, 81)).astype("f4"), rng.normal(size=size).astype("f4")
    ours = run(bind(feature), image[None], backend)[0]
    np.testing.assert_allclose(ours, by_definition(image[None], feature), rtol=0, atol=2e-7)
    np.testing.assert_allclose(ours, match_template(image, feature), rtol=0, atol=2e-5)
    np.testing.assert_allclose(ours, cv2.matchTemplate(image, feature, cv2.TM_CCOEFF_NORMED), rtol=0, atol=2e-5)


@pytest.mark.parametrize("backend", ["numpy", "ncc"])
@pytest.mark.parametrize(
    "params",
    [{"dilation": (2, 3)}, {"stride": (3, 2)}, {"dilation": (1, 2), "stride": (2, 1), "channels": "each"}],
    ids=str,
)
def test_channels_dilation_and_stride_follow_the_definition(params, backend):
    rng = np.random.default_rng(8)
    each = params.get("channels") == "each"
    image, feature = rng.normal(size=(3, 30, 41)), rng.normal(size=(5, 6) if each else (3, 5, 6))
    ours = run(bind(feature, maps=3, bias=0.25, **params), image, backend)
    wide = image.astype("f4")
    groups = [wide[c : c + 1] for c in range(3)] if each else [wide]
    for map_, group in zip(ours, groups, strict=True):
        expected = by_definition(group, feature, params.get("dilation", (1, 1)), params.get("stride", (1, 1)))
        np.testing.assert_allclose(map_, expected + 0.25, rtol=0, atol=2e-7)


def planted(extent, feature, places):
    """Noise of ± 9 around a background of 60,000, a flat corner, and the feature in other contrasts."""
    rng = np.random.default_rng(2)
    image = (OFFSET + rng.integers(-9, 10, extent)).astype(np.uint16)
    image[: extent[0] // 4, : extent[1] // 4] = OFFSET
    height, width = feature.shape
    for n, (y, x) in enumerate(places):
        image[y : y + height, x : x + width] = OFFSET + feature * (40 >> n % 6)  # down to one grey level
    return image


@pytest.mark.parametrize("size", [(5, 5), (21, 17)])
def test_planted_matches_in_an_image_of_large_offset_score_one_at_their_places_for_every_chunking(tmp_path, size):
    rng = np.random.default_rng(3)
    feature = rng.integers(-50, 51, size)
    places = [(300, 300), (249, 127), (256 - 3, 256 - 3), (400, 0), (512 - size[0], 512 - size[1]), (0, 300)]
    image = planted((512, 512), feature, places)
    source = str(tmp_path / "image.zarr")
    config = {
        "input": {"images": source},
        "features": {"planted": {"rows": feature.tolist()}},
        "layers": [{"type": "convolution", "features": "planted", "match": "ncc"}],
        "output": {"store": str(tmp_path / "maps.zarr")},
    }
    job = pipeline.load(config)
    whole = job.stack(image)
    for y, x in places:
        assert abs(whole[0, y, x] - 1) <= 1e-6
    assert sorted(map(tuple, np.argwhere(whole[0] > 0.99).tolist())) == sorted(places)
    assert np.abs(whole).max() <= 1
    assert not whole[0, : 128 - size[0], : 128 - size[1]].any()
    with dask.config.set(scheduler="synchronous"):
        for chunks in ((100, 90), (512, 31)):
            lazy = job.stack(da.from_array(image, chunks=chunks)).compute()
            np.testing.assert_array_equal(lazy.view("u4"), whole.view("u4"))
    for chunks in ((64, 64), (37, 512), (512, 101)):
        zarr.create_array(source, shape=image.shape, chunks=chunks, dtype=image.dtype, overwrite=True)[:] = image
        config["output"]["chunks"] = [61, 128]
        job = pipeline.load(config)
        assert pipeline.run(pipeline.plan(job), "serial", overwrite=True).complete
        stored = zarr.open_array(tmp_path / "maps.zarr/image/convolution/0")[:]
        np.testing.assert_array_equal(stored.view("u4"), whole.view("u4"))
    assert pipeline.verify(job).passed


@pytest.mark.parametrize("backend", ["numpy", "ncc"])
def test_brightness_and_contrast_change_nothing(backend):
    rng = np.random.default_rng(5)
    operation = bind(rng.normal(size=(9, 11)))
    image = rng.integers(-8, 9, (1, 60, 70)).astype(np.float32)  # whole numbers, so that float32 holds all of these
    plain = run(operation, image, backend)
    for changed in (image * 3, image / 1024, image + 2**18, image * 2**-60, image * 2.0**100):
        np.testing.assert_allclose(run(operation, changed, backend), plain, rtol=0, atol=3e-7)
    np.testing.assert_allclose(run(operation, -image, backend), -plain, rtol=0, atol=3e-7)


@pytest.mark.parametrize("backend", ["numpy", "ncc"])
@pytest.mark.parametrize("level", [0.0, 0.1, -1 / 3, OFFSET, 1e20, 1e-40])
def test_flat_patches_give_zero_and_rounding_is_no_contrast(level, backend):
    operation = bind(np.random.default_rng(1).normal(size=(6, 6)), bias=0.5)
    image = np.full((1, 40, 40), level, np.float32)
    assert (run(operation, image, backend) == 0.5).all()
    image[:, ::2, ::3] = np.nextafter(np.float32(level), np.float32(np.inf))
    assert (run(operation, image, backend) == 0.5).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_scores_stay_within_one_whatever_the_patches(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    size = tuple(data.draw(st.integers(2, 9)) for _ in range(2))
    image = rng.choice(data.draw(st.sampled_from([[0, 1], [-1, 1, 1e6], [60_000, 60_001], [0, 1e-20, 1e20]])), (40, 50))
    at = data.draw(st.integers(0, 20))
    feature = image[at : at + size[0], at : at + size[1]].astype("f4")
    if not np.ptp(feature):
        return
    for backend in ("numpy", "ncc"):
        ours = run(bind(feature), image[None], backend)[0]
        assert np.abs(ours).max() <= 1  # no NaN either
        assert abs(ours[at, at] - 1) <= 1e-6


@pytest.mark.parametrize("backend", ["numpy", "ncc"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_makes_nan_exactly_where_a_window_covers_it(value, backend):
    rng = np.random.default_rng(6)
    image = rng.normal(size=(1, 30, 31)).astype("f4")
    operation = bind(rng.normal(size=(4, 6)))
    plain = run(operation, image, backend)[0]
    image[0, 12, 13] = value
    out = run(operation, image, backend)[0]
    covered = np.zeros(out.shape, bool)
    covered[9:13, 8:14] = True
    np.testing.assert_array_equal(np.isnan(out), covered & (not np.isfinite(value)))
    np.testing.assert_allclose(out[~covered], plain[~covered], rtol=0, atol=2e-7)
    assert np.abs(out[~np.isnan(out)]).max() <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 31])
def test_deviations_are_numpys_for_every_size_and_exact_beside_a_large_offset(size):
    (operation,) = (bind(np.arange(2.0 * size).reshape(2, size), dilation=(3, 2), stride=(2, 1)),)
    image = 1e9 + np.random.default_rng(size).normal(0, 1e-2, (1, 9, 75))
    ours = deviation(image, 1, operation.windows)[0]
    for y, x in np.ndindex(ours.shape):
        patch = (
            image[0, 2 * y : 2 * y + 4 : 3, x : x + 2 * size : 2] if size > 1 else image[0, 2 * y : 2 * y + 4 : 3, x]
        )
        exact = np.std(patch - 1e9)  # exact, as they are close
        assert ours[y, x] == pytest.approx(exact if exact > 1e9 * 2**-21 else 0, rel=1e-6)


def test_large_features_take_transforms_and_any_rectangle_of_cells_has_the_bits_of_the_whole():
    operation = bind(np.random.default_rng(1).normal(size=(25, 25)))
    assert choose(operation).backend == "ncc"
    image = np.random.default_rng(2).normal(3, 1, (1, 400, 400)).astype("f4")
    whole = run(operation, image, "ncc")
    cell = BACKENDS["ncc"].cell(operation)
    for piece in ((Interval(0, cell[0]), Interval(cell[1], 376)), (Interval(cell[0], 376), Interval(0, cell[1]))):
        rows, columns = (w.reach(i) for w, i in zip(operation.windows, piece, strict=True))
        part = run(operation, image[:, rows.start : rows.stop, columns.start : columns.stop], "ncc")
        inner = whole[:, piece[0].start : piece[0].stop, piece[1].start : piece[1].stop]
        np.testing.assert_array_equal(part.view("u4"), np.ascontiguousarray(inner).view("u4"))


@pytest.mark.parametrize("feature", [np.ones((3, 3)), [[0.1]], np.full((5, 5), 1e7)])
def test_a_flat_feature_is_refused_by_name(feature):
    with pytest.raises(StackError, match=re.escape("layer 'match': feature 'f0' is flat, so 'match: ncc' finds")):
        bind(feature)
