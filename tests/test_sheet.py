"""The sheet of features: what is drawn where, and what the command refuses."""

import numpy as np
from PIL import Image

from pipeline.sheet import ACROSS, CELL, GAP, TEXT, sheet
from tests.conftest import ROOT

WHITE, BLACK, GRAY = (255, 255, 255), (0, 0, 0), (128, 128, 128)


def middle(row, column, y=0.5, x=0.5):
    return GAP + column * (CELL + GAP) + int(x * CELL), GAP + row * (CELL + TEXT + GAP) + int(y * CELL)


def test_every_feature_is_drawn_in_its_place_from_black_to_white():
    features = {f"f{n}": np.full((3, 3), 2.0 * (-1) ** n) for n in range(ACROSS)}
    features["zero"] = np.zeros((4, 4))
    features["red"] = np.array([[[1.0]], [[-1.0]], [[-1.0]]])
    features["two"] = np.array([[[1.0]], [[-1.0]]])
    features["large"] = np.pad(np.ones((400, 400)), ((0, 400), (0, 400)), constant_values=-1)
    picture = sheet(features)
    assert [picture.getpixel(middle(0, n)) for n in range(ACROSS)] == [WHITE, BLACK] * (ACROSS // 2)
    assert picture.getpixel(middle(1, 0)) == GRAY
    assert picture.getpixel(middle(1, 1)) == (255, 0, 0)
    assert [picture.getpixel(middle(1, 2, 0.75, x)) for x in (0.25, 0.75)] == [WHITE, BLACK]
    assert [picture.getpixel(middle(1, 3, 0.25, x)) for x in (0.25, 0.75)] == [WHITE, BLACK]
    assert picture.size == (GAP + ACROSS * (CELL + GAP), GAP + 2 * (CELL + TEXT + GAP))


def test_names_are_written_under_the_features_and_stay_in_their_column():
    named = np.asarray(sheet({"a_name_much_longer_than_a_cell_is_wide/12": np.ones((3, 3)), "": np.ones((3, 3))}))
    under = named[GAP + CELL + 2 : GAP + CELL + 17].min(axis=(0, 2))
    assert (under[GAP : GAP + CELL] < 100).any()
    assert (under[GAP + CELL :] == 255).all()


def test_the_command_writes_the_sheet_and_replaces_nothing_unasked(project, haloflow):
    config = str(ROOT / "configs/xo.yaml")
    code, out, err = haloflow("features", config, "-o", "sheet.png")
    assert (code, out, err) == (0, "sheet.png: 3 features\n", "")
    with Image.open("sheet.png") as picture:
        assert picture.size == (GAP + 3 * (CELL + GAP), GAP + CELL + TEXT + GAP)
    for args, words in (
        (("-o", "sheet.png"), "sheet.png: exists already; give --overwrite to replace it"),
        (("-o", "sheet.jpg"), "sheet.jpg: the sheet is a PNG file; end its name in .png"),
        (("-o", "none/sheet.png"), "none/sheet.png: there is no folder none"),
    ):
        code, out, err = haloflow("features", config, *args)
        assert code == 2
        assert words in err
    assert haloflow("features", config, "-o", "sheet.png", "--overwrite", "--quiet")[:2] == (0, "")
