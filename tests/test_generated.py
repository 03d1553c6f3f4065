"""Generated features against SciPy and geometry; families, their names, and how layers take them."""

import re

import numpy as np
import pytest
from scipy import ndimage

import pipeline
from pipeline.errors import ConfigError, FeatureError
from pipeline.features import File, Picture, Rows, family, make_all
from pipeline.generated import Generated, copies, draw


def made(**spec):
    return draw(Generated(**spec))


def impulse(size):
    image = np.zeros((size, size))
    image[size // 2, size // 2] = 1
    return image


@pytest.mark.parametrize("sigma", [0.7, 2.0, 4.5])
def test_gaussians_and_their_differences_are_scipys(sigma):
    def filtered(width):
        return ndimage.gaussian_filter(impulse(15), width, radius=7, mode="constant")

    np.testing.assert_allclose(made(generate="gaussian", size=15, sigma=sigma)[0], filtered(sigma), atol=1e-12)
    dog = made(generate="dog", size=15, sigma=sigma, ratio=2.0)[0]
    np.testing.assert_allclose(dog, filtered(sigma) - filtered(2 * sigma), atol=1e-12)


def test_the_laplacian_of_gaussian_is_scipys_and_has_no_answer_to_what_is_flat():
    ours = made(generate="laplacian", size=31, sigma=3.0)[0]
    theirs = ndimage.gaussian_laplace(impulse(31), 3.0, radius=15, mode="constant")
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    assert abs(ours.sum()) < 1e-12


@pytest.mark.parametrize(("kind", "theirs"), [("sobel", ndimage.sobel), ("prewitt", ndimage.prewitt)])
def test_gradients_are_scipys_along_x_and_up(kind, theirs):
    image = np.random.default_rng(1).normal(size=(12, 13))
    right, up = (ndimage.correlate(image, feature) for feature in made(generate=kind))
    np.testing.assert_allclose(right, theirs(image, 1), atol=1e-12)
    np.testing.assert_allclose(up, -theirs(image, 0), atol=1e-12)


@pytest.mark.parametrize("kind", ["sobel", "prewitt"])
def test_gradients_of_whole_quarters_are_whole_numbers(kind):
    right, up = made(generate=kind)
    assert {0.0, 1.0} <= set(np.abs(right).ravel()) <= {0.0, 1.0, 2.0}
    assert np.array_equal(up, np.rot90(right))


@pytest.mark.parametrize("kind", ["sobel", "prewitt"])
def test_a_turned_gradient_is_the_slope_in_its_direction(kind):
    y, x = np.mgrid[:3, :3]
    for member, feature in enumerate(made(generate=kind, orientations=6)):
        answers = []
        for degrees in range(0, 360, 10):
            angle = np.deg2rad(degrees)
            answers.append((feature * (x * np.cos(angle) - y * np.sin(angle))).sum())  # y goes down
        assert 10 * int(np.argmax(answers)) == 30 * member


@pytest.mark.parametrize("phase", [0.0, 90.0])
def test_each_gabor_answers_most_to_waves_of_its_own_direction_length_and_phase(phase):
    bank = made(generate="gabor", size=31, wavelength=8.0, orientations=6, phase=phase)
    y, x = np.mgrid[15:-16:-1, -15:16].astype(float)  # y goes up
    for member, feature in enumerate(bank):
        assert abs(feature.sum()) < 1e-12
        assert np.abs(feature).max() == 1
        angle = np.deg2rad(30 * member)
        along = x * np.cos(angle) + y * np.sin(angle)
        wave = np.cos(2 * np.pi * along / 8 - np.deg2rad(phase))
        assert int(np.argmax([(other * wave).sum() for other in bank])) == member
        for different in (np.cos(2 * np.pi * along / 4), np.cos(2 * np.pi * along / 16)):
            assert (feature * wave).sum() > 3 * abs((feature * different).sum())


def area(values):
    assert np.abs(values).max() <= 1
    return ((values + 1) / 2).sum()


def test_drawings_cover_the_area_of_their_shapes():
    assert area(made(generate="disk", size=41, radius=12.0)[0]) == pytest.approx(np.pi * 144, rel=2e-3)
    assert area(made(generate="ring", size=41, radius=12.0, thickness=3.0)[0]) == pytest.approx(72 * np.pi, rel=2e-3)
    for line in made(generate="line", size=41, thickness=4.0)[::2]:
        assert area(line) == pytest.approx(164, rel=1e-6)
    assert area(made(generate="corner", size=41, thickness=3.0)[0]) == pytest.approx(3 * 21 + 3 * 21 - 4, rel=0.02)
    assert area(made(generate="cross", size=41, thickness=3.0)[0]) == pytest.approx(2 * 3 * 41 - 9, rel=1e-6)


def test_members_turn_counter_clockwise():
    corners = made(generate="corner", size=14, thickness=2.0)
    for member, corner in enumerate(corners):
        np.testing.assert_allclose(corner, np.rot90(corners[0], member), atol=1e-12)
    assert corners[0][:7, 7:].mean() == max(part.mean() for part in np.split(np.hstack(np.split(corners[0], 2)), 4, 1))
    lines = made(generate="line", size=9, thickness=1.0)
    np.testing.assert_allclose(lines[0][4], 1)  # along x
    np.testing.assert_allclose(np.diag(lines[1][::-1]), 1)  # rising
    across, diagonal = made(generate="cross", size=9, thickness=1.0)
    for stroke in (across[4], across[:, 4], np.diag(diagonal), np.diag(diagonal[::-1])):
        np.testing.assert_allclose(stroke, 1)


@pytest.mark.parametrize("shape", [(5, 5), (6, 6), (3, 4, 4)])
def test_quarter_turns_are_exact(shape):
    values = np.random.default_rng(2).normal(size=shape)
    for turn, copy in enumerate(copies(values, 4, (1.0,), 0.0)):
        np.testing.assert_array_equal(copy, np.rot90(values, turn, (-2, -1)))


def test_copies_are_scipys_rotation_and_zoom_within_a_common_canvas():
    y, x = np.mgrid[-10:11, -10:11]
    blob = np.exp(-(x**2) / 40 - y**2 / 10)
    turned = copies(blob, 8, (1.0,), 0.0)
    assert {copy.shape for copy in turned} == {(31, 31)}
    theirs = ndimage.rotate(np.pad(blob, 5), 45, reshape=False, order=1)
    np.testing.assert_allclose(turned[1], theirs, atol=1e-6)
    half, same, twice = copies(blob, 1, (0.5, 1.0, 2.0), 0.0)
    assert half.shape == same.shape == twice.shape == (43, 43)
    np.testing.assert_array_equal(same[11:-11, 11:-11], blob)
    np.testing.assert_allclose(twice[1:-1:2, 1:-1:2], blob, atol=1e-12)
    assert half.sum() == pytest.approx(blob.sum() / 4, rel=0.02)
    assert half.argmax() == same.argmax() == twice.argmax() == 43 * 43 // 2


def test_what_stands_around_a_copy():
    corner = np.array([[1, 1, 1], [-1, -1, 1], [-1, -1, 1]])
    for spec, around in (
        (Picture(picture="# # #\n. . #\n. . #", scale=(1.0, 3.0)), -1),
        (Rows(rows=corner.tolist(), scale=(1.0, 3.0)), 0),
        (Generated(generate="cross", size=3, scale=(1.0, 3.0)), -1),
        (Generated(generate="gaussian", size=3, scale=(1.0, 3.0)), 0),
    ):
        first = next(iter(make_all("f", spec, None).values()))
        assert first.shape == (9, 9)
        assert (first[0] == around).all()


def test_around_a_file_stands_what_most_of_its_border_is(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[7.0, 7, 2], [7, 1, 7], [3, 7, 7]]))
    first, _ = make_all("f", File(file=str(tmp_path / "a.npy"), scale=(1.0, 3.0)), None).values()
    assert (first[0] == 7).all()
    assert first[3:6, 3:6].tolist() == [[7, 7, 2], [7, 1, 7], [3, 7, 7]]


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("#", None),
        (Picture(picture="#"), None),
        (Picture(picture="#", rotate=1), 1),
        (Rows(rows=[[1]], rotate=3, scale=(1.0, 2.0)), 6),
        (Generated(generate="disk", size=3), None),
        (Generated(generate="gabor", size=3), 4),
        (Generated(generate="corner", size=3, orientations=2, rotate=3, scale=(1.0, 2.0)), 12),
    ],
)
def test_a_family_has_its_members_names(spec, count):
    names = ("f",) if count is None else tuple(f"f/{n}" for n in range(count))
    assert family("f", spec) == names
    assert tuple(make_all("f", spec, None)) == names


BASE = {"input": {"images": "i.zarr"}, "output": {"store": "o.zarr"}}
BANK = {"generate": "line", "size": 5, "orientations": 3}


def load(features, *layers):
    return pipeline.load(
        {**BASE, "features": features, "layers": [{"type": "convolution", **layer} for layer in layers]}
    )


def test_a_layer_takes_all_members_of_a_family_or_some():
    image = np.random.default_rng(1).integers(0, 255, (20, 21)).astype(np.uint8)
    job = load(
        {"bank": BANK, "dot": {"generate": "disk", "size": 5}}, {"features": ["bank", "dot"], "bias": [1, 2, 3, 4]}
    )
    (operation,) = job.stack.layers.bind(("0",)).operations
    assert operation.maps == ("bank/0", "bank/1", "bank/2", "dot")
    maps = job.stack(image)
    one = load({"bank": BANK}, {"features": "bank/1", "bias": 2})
    np.testing.assert_array_equal(one.stack(image)[0], maps[1])


@pytest.mark.parametrize(
    ("features", "layer", "words"),
    [
        ({"bank": {"generate": "gabo"}}, {}, "features.bank.generate: 'gabo' is not possible; did you mean 'gabor'"),
        ({"bank": {"generate": "gabor", "sizes": 5}}, {}, "features.bank.sizes: unknown key; did you mean 'size'?"),
        ({"bank": {"generate": "gabor"}}, {}, "features.bank: gabor needs a size, its height and width in pixels"),
        ({"bank": {**BANK, "radius": 2}}, {}, "radius has no effect on line; it takes size, thickness, orientations"),
        ({"bank": {**BANK, "size": 5000}}, {}, "features.bank.size: should be less than or equal to 1024; found 5000"),
        ({"bank": {**BANK, "rotate": 0}}, {}, "features.bank.rotate: should be greater than or equal to 1; found 0"),
        ({"bank": {**BANK, "scale": [1, 0]}}, {}, "scale[1]: should be greater than or equal to 0.0009765625"),
        ({"bank": {**BANK, "thickness": 0}}, {}, "thickness: should be greater than or equal to 0.0009765625; found 0"),
        ({"bank": {"generate": "gabor", "size": 3, "sigma": 1e-200}}, {}, "bank.sigma: should be greater than"),
        ({"bank": {**BANK, "rotate": 200}}, {}, "features.bank: makes 600 features; at most 256 are possible"),
        ({"bank": BANK}, {"features": "bank/3"}, "there is no feature 'bank/3'; did you mean 'bank/"),
        ({"bank": BANK}, {"features": "bnk"}, "there is no feature 'bnk'; did you mean 'bank'? (valid: bank)"),
        ({"bank": BANK}, {"bias": [1, 2]}, "layers[0]: bias has 2 numbers for 3 features"),
        ({"bank": BANK, "bank/1": "#"}, {}, "the name 'bank/1' is that of a member of the family 'bank'"),
    ],
)  # fmt: skip
def test_a_family_that_cannot_be_is_refused_in_the_users_words(features, layer, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(features, {"features": "bank", **layer})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**BANK, "size": 100, "scale": 20}, "is 100 × 100; turned and scaled it would take up to 2829 pixels"),
        ({**BANK, "size": 1024, "orientations": 100}, "its 100 members of 1048576 values are too many for a family"),
        ({"rows": [[1] * 700], "rotate": 100}, "its 100 members of 491401 values are too many for a family"),
    ],
)
def test_a_family_too_large_is_refused_before_it_is_made(spec, words):
    with pytest.raises(FeatureError, match=re.escape(words)):
        load({"bank": spec}, {"features": "bank"})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"generate": "gabor", "size": 4}, "feature 'bank': as gabor of size 4 one of 4 members is 0 or no number"),
        ({"generate": "gabor", "size": 5, "wavelength": 1}, "as gabor of size 5 one of 4 members is 0 or no number"),
        ({"generate": "dog", "size": 2}, "as dog of size 2 it is 0 or no number at every pixel; change its size, or"),
        ({"generate": "gaussian", "size": 4, "sigma": 0.01}, "as gaussian of size 4 it is 0 or no number"),
        ({"generate": "cross", "size": 2}, "as cross of size 2 one of 2 members is 0 or no number at every pixel"),
    ],
)
def test_a_formula_that_gives_nothing_is_refused(spec, words):
    with pytest.raises(FeatureError, match=re.escape(words)):
        load({"bank": spec}, {"features": "bank"})
