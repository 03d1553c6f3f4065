"""From what the config says to small arrays, and every way that can fail."""

import pickle
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import FeatureError
from pipeline.features import MAX_PIXELS, CropOf, CropSpec, File, Rows, make

GRAY = np.array([[0, 255, 51], [102, 1, 254]], np.uint8)


def no_crop(spec):
    raise AssertionError(f"no crop was asked for: {spec}")


def refused(spec, words):
    with pytest.raises(FeatureError, match=re.escape(words)) as error:
        make("blob", spec, no_crop)
    assert str(error.value).startswith("feature 'blob'")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# .\n. #", [[1, -1], [-1, 1]]),
        ("#.0", [[1, -1, 0]]),
        ("\n\n  # . 0\n\n\t. 0 #  \n", [[1, -1, 0], [-1, 0, 1]]),  # blanks and empty lines count for nothing
        ("#\r\n.\r\n", [[1], [-1]]),
        ("0", [[0]]),
    ],
)
def test_a_picture_is_drawn_with_three_signs(text, expected):
    values = make("blob", text, no_crop)
    assert values.tolist() == expected
    assert values.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# .\n. x", "row 2: 'x' is no sign of a picture; '#' is 1, '.' is -1, '0' is 0"),
        ("# .\n#", "row 2: has 1 signs, the first row has 2"),
        ("#\n# .\n", "row 2: has 2 signs, the first row has 1"),
        ("", "the picture is empty"),
        (" \n\t\n", "the picture is empty"),
        ("# 1", "row 1: '1' is no sign of a picture"),
        ("shapes/T.npy", "'0' is 0; write 'file: shapes/T.npy'"),
        ("＃", "row 1: '＃' is no sign of a picture"),  # looks like the sign and is none
    ],
)
def test_a_picture_that_is_none_is_refused_with_its_row(text, words):
    refused(text, words)


@pytest.mark.parametrize(
    "rows",
    [[[1, 2.5], [-3, 0]], [[7]], [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], [[[1, 2, 3]]], [[1e30, -1e-30]]],
)
def test_rows_are_numbers_of_two_or_three_axes(rows):
    values = make("blob", Rows(rows=rows), no_crop)
    assert values.tolist() == rows
    assert values.dtype == np.float64


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, 2], [3]], "its rows are not all of one length"),
        ([[[1, 2], [3, 4]], [[5, 6]]], "its rows are not all of one length"),
        ([[1, [2]]], "its rows are not all of one length"),
        ([1, 2], "has the shape (2,); expected (y, x) or (channel, y, x)"),
        ([[]], "has the shape (1, 0); expected"),
        ([[[[1]]]], "rows hold [1]; expected rows of numbers"),
        ([[True]], "rows hold True; expected rows of numbers"),
        ([["1"]], "rows hold '1'; expected rows of numbers"),
        ([[None]], "rows hold None; expected rows of numbers"),
        ([[1, float("nan")]], "holds NaN or infinity, or a number too large for float32"),
        ([[1, 1e300]], "holds NaN or infinity, or a number too large for float32"),
        ([[1, -float("inf")]], "holds NaN or infinity"),
        ([[10**400]], "finite number"),
    ],
)
def test_rows_that_are_none_are_refused(rows, words):
    refused(Rows(rows=rows), words)


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i2", "u1", "?", "f2"])
def test_an_npy_file_keeps_its_numbers(tmp_path, dtype):
    path = tmp_path / "a.npy"
    values = np.array([[0, 1], [1, 0], [1, 1]], dtype, order="F")
    np.save(path, values)
    made = make("blob", File(file=str(path)), no_crop)
    assert made.tolist() == values.astype(float).tolist()
    assert made.dtype == np.float64
    assert type(made) is np.ndarray  # no open file behind it


def header(shape, descr="<f8"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class Trap:
    """Unpickled, it makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return __import__("os").mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["object array", "pickle"])
def test_a_pickle_in_an_npy_file_is_refused_and_never_run(tmp_path, form):
    path, canary = tmp_path / "a.npy", tmp_path / "canary"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Trap(canary)))
    else:
        np.save(path, np.array([[Trap(canary)]], object), allow_pickle=True)
    refused(File(file=str(path)), f"{path} cannot be read")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"\x93NUM", "cannot be read"),
        (b"PK\x03\x04 an archive", "cannot be read"),
        (header((2, 2)), "cannot be read"),  # no data behind it
        (header((-1, 2)), "cannot be read"),
        (header("2"), "cannot be read"),
        (header((2, 2), "zz"), "cannot be read"),
        (header((2**40, 8)), "cannot be read"),
        (header((2**60, 2**60)), "cannot be read"),  # its size overflows 64 bits
        (header((2**70, 1)), "cannot be read"),
        (header((1, 1), "<c8") + bytes(8), "holds 1 values of type complex64; expected at most"),
        (header((1, 1), "<M8[s]") + bytes(8), "of type datetime64[s]; expected at most"),
        (header((0, 3)), "has the shape (0, 3)"),
        (header((3,)) + bytes(24), "has the shape (3,)"),
        (header((1, 1)) + np.array(np.nan).tobytes(), "holds NaN or infinity"),
    ],
    ids=repr,
)
def test_a_damaged_or_hostile_npy_file_is_refused(tmp_path, content, words):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    refused(File(file=str(path)), words)


def test_an_npz_archive_under_another_name_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.savez(file, a=np.ones((2, 2)))
    refused(File(file=str(path)), "a.npy")


def test_a_huge_npy_file_is_refused_without_being_read(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        file.write(header((2**18, 2**16)))
        file.truncate(128 + 8 * 2**34)  # 137 GB, sparse
    refused(
        File(file=str(path)),
        f"holds {2**34} values of type float64; expected at most {MAX_PIXELS} real numbers",
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_gray_image_is_scaled_from_black_to_white(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GRAY).save(path)
    made = make("blob", File(file=str(path)), no_crop)
    np.testing.assert_allclose(made, GRAY / 255 * 2 - 1, rtol=0, atol=1e-15)
    assert made[0, :2].tolist() == [-1, 1]


def test_an_image_of_one_bit_is_minus_and_plus_one(tmp_path):
    Image.fromarray(GRAY > 100).save(tmp_path / "a.png")
    made = make("blob", File(file=str(tmp_path / "a.png")), no_crop)
    assert made.tolist() == [[-1, 1, -1], [1, -1, 1]]


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_colours_become_three_channels(tmp_path, mode):
    pixels = np.array([[[255, 0, 0], [0, 51, 255]]], np.uint8)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.quantize(4, dither=Image.Dither.NONE)
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as written:
        assert written.mode == mode
    made = make("blob", File(file=str(tmp_path / "a.png")), no_crop)
    np.testing.assert_allclose(made, np.moveaxis(pixels, -1, 0) / 255 * 2 - 1, atol=1e-15)


def test_sixteen_bits_are_scaled_by_their_own_range(tmp_path):
    pixels = np.array([[0, 65535, 13107]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = make("blob", File(file=str(tmp_path / "a.png")), no_crop)
    np.testing.assert_allclose(made, [[-1, 1, -0.6]], atol=1e-15)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "F", "I"])
def test_images_of_other_modes_are_refused(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.new(mode, (3, 2)).save(path)
    refused(File(file=str(path)), f"is of mode {mode}; expected gray or RGB, without transparency")


def test_a_palette_with_transparency_is_refused_too(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GRAY).convert("P").save(path, transparency=0)
    refused(File(file=str(path)), "without transparency")


def test_files_that_are_not_there_or_no_image(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("not an image")
    cut = tmp_path / "cut.png"
    Image.fromarray(np.arange(10_000, dtype=np.uint32).astype(np.uint8).reshape(100, 100)).save(cut)
    cut.write_bytes(cut.read_bytes()[:150])
    refused(File(file=str(text)), f"{text} cannot be read")
    refused(File(file=str(cut)), f"{cut} cannot be read")
    refused(File(file=str(tmp_path)), f"there is no file {tmp_path}")
    refused(File(file="none.png"), "there is no file none.png")
    refused(File(file="a\0b.npy"), "there is no file")


def test_a_file_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", np.eye(3))
    np.testing.assert_array_equal(make("blob", File(file="~/a.npy"), no_crop), np.eye(3))


def test_a_file_name_too_long_for_the_disk_is_refused():
    refused(File(file="a" * 5000), "feature 'blob'")


def test_an_image_that_is_a_bomb_is_refused_unopened(tmp_path):
    path = tmp_path / "a.pgm"
    for width in (5000, 10_000, 10**6):  # too large; Pillow warns; Pillow raises
        path.write_bytes(f"P5 {width} {width} 255\n".encode())
        refused(File(file=str(path)), str(path))


def test_a_crop_is_asked_for_and_checked_like_any_other():
    spec = CropOf(crop=CropSpec(image="a.zarr", y=1, x=2, height=1, width=2))
    asked = []

    def crop(what, values):
        asked.append(what)
        return np.array(values, float)

    assert make("blob", spec, lambda what: crop(what, [[[1, 2]]])).tolist() == [[[1, 2]]]
    assert asked == [spec.crop]
    with pytest.raises(FeatureError, match="feature 'blob': holds NaN"):
        make("blob", spec, lambda what: crop(what, [[[1, np.nan]]]))
