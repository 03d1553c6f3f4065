"""Between stored numbers and map values, for every type an image or a map may have."""

from fractions import Fraction

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.pixels import Encoding, PixelScale, stored_dtype

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
SCALED = ["int8", "uint8", "int16", "uint16"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_an_integer_type_are_exactly_minus_and_plus_one(dtype):
    limits = np.iinfo(dtype)
    values = np.array([limits.min, limits.max], dtype)
    assert PixelScale(dtype).to_map(values).tolist() == [-1, 1]
    assert PixelScale(dtype).exact(values).tolist() == [-1, 1]
    inverted = PixelScale(dtype, black=float(limits.max), white=float(limits.min))
    assert inverted.to_map(values).tolist() == [1, -1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_unchanged_by_default(dtype):
    values = np.array([-1, 1, 0.5, -0.0, np.inf, -np.inf, np.nan, 6e4], dtype)
    out = PixelScale(dtype).to_map(values)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, values.astype(np.float64).astype(np.float32))
    assert np.signbit(out[3])


def test_booleans_are_minus_and_plus_one():
    assert PixelScale("bool").to_map(np.array([False, True])).tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("dtype", "black", "white", "pixels", "expected"),
    [
        ("uint8", 0, 255, [0, 51, 255], [-1, -0.6, 1]),
        ("uint8", 255, 0, [0, 51, 255], [1, 0.6, -1]),
        ("uint8", 100, 200, [0, 150, 255], [-3, 0, 2.1]),  # values outside go beyond ±1
        ("int16", -1000, 1000, [-1000, 0, 500, 1000], [-1, 0, 0.5, 1]),
        ("uint16", None, 1000, [0, 500, 1000], [-1, 0, 1]),
        ("float32", 0, 4, [0, 1, 4, np.inf, np.nan], [-1, -0.5, 1, np.inf, np.nan]),
        ("float64", -1, 3, [-1, 1, 3], [-1, 0, 1]),
        ("bool", 1, 0, [0, 1], [1, -1]),
    ],
)
def test_black_and_white_are_minus_and_plus_one(dtype, black, white, pixels, expected):
    out = PixelScale(dtype, black, white).to_map(np.array(pixels, dtype))
    np.testing.assert_array_equal(out, np.array(expected, np.float32))


@pytest.mark.parametrize("bits", [32, 64])
def test_small_pixels_of_large_signed_types_keep_their_digits(bits):
    """An image of 0 … 255 in NumPy's own integers: all of it would be 0, and a normalised correlation, too."""
    values = np.arange(-300, 300)
    made = PixelScale(f"int{bits}").to_map(values.astype(f"int{bits}"))
    for value, out in zip(values.tolist(), made, strict=True):
        exact = Fraction(2 * value + 1, 2**bits - 1)
        assert abs(Fraction(float(out)) - exact) <= abs(exact) * Fraction(2) ** -24


@pytest.mark.parametrize(
    ("dtype", "black", "white"),
    [
        ("uint8", 100, 0),
        ("uint16", 4096, 0),
        ("int8", None, None),
        ("uint16", 113, 40007),
        ("int16", -77, 20.5),
        ("uint16", 101.3, 4711.9),
        ("uint8", 1 / 3, -7e5),
    ],
)
def test_small_integers_become_map_values_by_a_line(dtype, black, white):
    """A table takes longer, and with −0 in its middle it would be no line."""
    assert PixelScale(dtype, black, white).line
    assert not np.signbit(PixelScale("float32", 100, 0).exact(np.array([50.0])))


def test_ends_at_the_end_of_float64_are_kept():
    assert PixelScale("float64", 0, 1e308).exact(np.array([0, 1e308])).tolist() == [-1, 1]


def test_float16_is_off_by_half_a_step_at_the_most():
    values = np.concatenate([np.random.default_rng(3).uniform(-2, 2, 5000), [6e-8, -2.9e-8, 65504.0]])
    off = np.abs(values - values.astype(np.float16))
    rounding = Encoding("float16").rounding(values)
    assert (off <= rounding).all()
    assert (off / rounding).max() > 0.9


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("ends", [(None, None), (3.25, 77), (200, -100)])
def test_the_table_of_a_small_integer_type_is_the_exact_value_rounded_once(dtype, ends):
    limits = np.iinfo(dtype)
    every = np.arange(limits.min, limits.max + 1).astype(dtype)
    scale = PixelScale(dtype, *ends)
    black, white = scale.ends
    expected = ((every.astype(np.float64) - black) / (white - black) * 2 - 1).astype(np.float32)
    np.testing.assert_array_equal(scale.to_map(every), expected)
    np.testing.assert_array_equal(scale.to_map(every[::-3].reshape(1, -1)), expected[::-3][None])  # a strided view


@given(st.integers(-(2**63), 2**63 - 1))
def test_large_integers_are_right_to_float32(value):
    out = PixelScale("int64").to_map(np.array([value]))[0]
    exact = Fraction(value + 2**63, 2**64 - 1) * 2 - 1
    assert abs(Fraction(float(out)) - exact) <= Fraction(2) ** -23


def test_a_float64_pixel_beyond_float32_is_infinite_without_a_warning():
    assert PixelScale("float64").to_map(np.array([1e300, -1e300])).tolist() == [np.inf, -np.inf]


def test_a_scaled_pixel_beyond_float32_is_infinite_without_a_warning():
    assert PixelScale("float32", 0, 1e-10).to_map(np.array([3e38], "f4")).tolist() == [np.inf]


@pytest.mark.parametrize("ends", [(5, 5), (0, 0.0), (None, 255), (0, None)])
def test_black_and_white_must_differ(ends):
    if None in ends:
        with pytest.raises(InputError, match="both 255; they must differ"):
            PixelScale("uint8", 255, None)
        return
    with pytest.raises(InputError, match=r"input.black and input.white are both"):
        PixelScale("uint8", *ends)


@pytest.mark.parametrize("dtype", SCALED)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 2.5), (-300.0, -7.0)])
def test_a_scaled_map_comes_back_within_half_a_step(dtype, low, high):
    encoding = Encoding(dtype, low, high)
    values = np.linspace(low, high, 1001, dtype=np.float32)
    stored = encoding.encode(values)
    assert stored.dtype == dtype
    back = encoding.decode(stored)
    np.testing.assert_allclose(
        back, values, rtol=0, atol=encoding.rounding(values).max() * (1 + 1e-9) + np.spacing(np.float32(300))
    )
    np.testing.assert_allclose(back[[0, -1]], [low, high], rtol=1e-6)
    np.testing.assert_array_equal(encoding.encode(back.astype(np.float32)), stored)  # and again: no drift


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("int8", [-127, 127, 127, -127, 0, -128, 64, -127]),
        ("uint8", [0, 254, 254, 0, 127, 255, 190, 0]),
        ("int16", [-32767, 32767, 32767, -32767, 0, -32768, 16384, -32767]),
        ("uint16", [0, 65534, 65534, 0, 32767, 65535, 49150, 0]),
    ],
)
def test_what_lies_outside_is_cut_off_and_nan_has_a_code_of_its_own(dtype, expected):
    values = np.array([-1, 1, np.inf, -np.inf, 0, np.nan, 0.5, -7], np.float32)
    encoding = Encoding(dtype)
    assert encoding.encode(values).tolist() == expected
    np.testing.assert_allclose(
        encoding.decode(encoding.encode(values)),
        [-1, 1, 1, -1, 0, np.nan, 0.5, -1],
        atol=encoding.rounding(values).max(),
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_float_maps_keep_their_special_values(dtype):
    values = np.array([0.1, -0.0, np.inf, -np.inf, np.nan, 1e-3], np.float32)
    stored = Encoding(dtype).encode(values)
    np.testing.assert_array_equal(stored, values.astype(dtype))
    assert np.signbit(stored[1])
    np.testing.assert_allclose(Encoding(dtype).decode(stored), values, rtol=float(np.finfo(dtype).eps))


def test_a_value_beyond_float16_is_infinite_without_a_warning():
    assert Encoding("float16").encode(np.array([1e6, -1e6], np.float32)).tolist() == [np.inf, -np.inf]


def test_encoding_leaves_the_maps_alone():
    values = np.array([0.1, np.nan], np.float32)
    for dtype in ("float32", "float16", "int8"):
        Encoding(dtype).encode(values)
        np.testing.assert_array_equal(values, np.array([0.1, np.nan], np.float32))


@pytest.mark.parametrize("dtype", SCALED)
def test_xarray_decodes_a_scaled_map_by_its_cf_attributes(tmp_path, dtype):
    encoding = Encoding(dtype, -2.0, 3.0)
    values = np.array([[-2, 0.25, np.nan], [3, 1e9, 0]], np.float32)
    group = zarr.create_group(tmp_path / "maps.zarr", zarr_format=3)
    array = group.create_array(
        "0",
        shape=(2, 3),
        chunks=(2, 3),
        dtype=dtype,
        dimension_names=("y", "x"),
        attributes=encoding.attributes,
    )
    array[:] = encoding.encode(values)
    with xr.open_zarr(tmp_path / "maps.zarr", consolidated=False) as opened:
        decoded = opened["0"].to_numpy()
    expected = [[-2, 0.25, np.nan], [3, 3, 0]]
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=encoding.rounding(expected).max() * 1.01)
    np.testing.assert_allclose(decoded, encoding.decode(array[:]), rtol=1e-6)


def test_unscaled_maps_have_no_attributes():
    assert Encoding("float16").attributes == {}
    assert not Encoding("float16").is_scaled


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(">u2", "uint16"), ("<f4", "float32"), ("?", "bool"), (">i8", "int64"), ("e", "float16")],
)
def test_a_stored_type_is_named_without_its_byte_order(dtype, name):
    assert stored_dtype(dtype) == name


@pytest.mark.parametrize("dtype", ["c8", "O", "S3", "M8[s]", "U2", [("a", "u1")], "longdouble"])
def test_no_other_type_makes_an_image(dtype):
    with pytest.raises(InputError, match="they must be booleans, integers or floats of at most 64 bits"):
        stored_dtype(dtype)
