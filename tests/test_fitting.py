"""Votes that are learned from labelled images: exact, whole or not at all, and every way the labels can be wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import pipeline
from pipeline import fitting
from tests.conftest import ROOT

Call = Callable[..., tuple[int, str, str]]
CLASSES = ("dark", "light", "striped")


def picture(kind: str, draw: np.random.Generator) -> np.ndarray:
    image = draw.normal({"dark": 60, "light": 190}.get(kind, 125), 12, (12, 15))
    if kind == "striped":
        image[:, ::2] += 60
    return image.clip(0, 255).astype("u1")


def config(**more: Any) -> dict[str, Any]:
    return {
        "input": {"images": "images/*.zarr"},
        "features": {"dot": "#", "step": {"rows": [[-1, 1]]}},
        "layers": [
            {"type": "convolution", "features": "dot"},
            {"type": "convolution", "name": "two", "features": ["flat", "step"]},
            {"type": "global_pool", "op": "max"},
            {"type": "vote", "file": "votes.yaml"},
            {"type": "softmax"},
        ],
        "output": {"store": "decided.zarr", "decisions": {"format": "csv"}},
    } | {"features": {"dot": "#", "flat": {"rows": [[1, 1]]}, "step": {"rows": [[-1, 1]]}}, **more}


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 8 images of each class, their labels and a config; the working directory is in it."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(1)
    lines = ["image,label"]
    for n in range(8):
        for kind in CLASSES:
            zarr.create_array(f"images/{kind}-{n}.zarr", data=picture(kind, draw), chunks=(5, 5))
            lines.append(f"{kind}-{n},{kind}")
    Path("labels.csv").write_text("\n".join(lines) + "\n")
    Path("config.yaml").write_text(yaml.safe_dump(config(), sort_keys=False))
    return tmp_path


def probabilities(image: np.ndarray) -> np.ndarray:
    """What a regression by scikit-learn on the labelled images says of another, class by class."""
    values, labels = features()
    scale = StandardScaler().fit(values)
    model = LogisticRegression(max_iter=10_000).fit(scale.transform(values), labels)
    made = pipeline.load(config() | {"layers": config()["layers"][:3]}).stack(image)
    return model.predict_proba(scale.transform(made.reshape(1, -1)))[0]


def features() -> tuple[np.ndarray, np.ndarray]:
    """What the layers before the vote make of each image, by the stack in memory, and the labels."""
    rows = [line.split(",") for line in Path("labels.csv").read_text().splitlines()[1:]]
    whole = config()
    stack = pipeline.load(whole | {"layers": whole["layers"][:3]}).stack
    made = [stack(zarr.open_array(f"images/{name}.zarr")[:]).ravel() for name, _ in rows]
    return np.array(made, float), np.array([label for _, label in rows])


def test_the_votes_give_the_probabilities_of_the_regression(labelled: Path) -> None:
    found = pipeline.fit("config.yaml", "labels.csv", cluster="serial")
    assert found.classes == dict.fromkeys(CLASSES, 8)
    assert (found.images, found.features, found.folds, found.accuracy) == (24, 2, 5, 1.0)
    stack = pipeline.load("config.yaml").stack
    for kind in CLASSES:
        image = picture(kind, np.random.default_rng(9))
        shares = stack(image).ravel()
        np.testing.assert_allclose(shares, probabilities(image), atol=1e-5)
        assert CLASSES[int(shares.argmax())] == kind


def test_two_classes_share_what_the_regression_says_of_one(labelled: Path) -> None:
    lines = [line for line in Path("labels.csv").read_text().splitlines() if "striped" not in line]
    Path("labels.csv").write_text("\n".join(lines))
    pipeline.fit("config.yaml", "labels.csv", cluster="serial")
    image = picture("striped", np.random.default_rng(2))
    made = pipeline.load("config.yaml").stack(image)
    np.testing.assert_allclose(made.ravel(), probabilities(image), atol=1e-5)


def test_the_accuracy_is_of_images_that_were_not_fitted_on(labelled: Path) -> None:
    """Labels by chance are learned by heart, or not, and never guessed."""
    names = [f"{kind}-{n}" for n in range(8) for kind in CLASSES]
    mixed = np.random.default_rng(0).permutation(["a", "b"] * 12)
    Path("labels.csv").write_text("image,label\n" + "".join(f"{n},{m}\n" for n, m in zip(names, mixed, strict=True)))
    assert pipeline.fit("config.yaml", "labels.csv", cluster="serial").accuracy < 0.8


def test_a_map_that_is_the_same_for_all_gets_no_weight(labelled: Path) -> None:
    values = np.array([[1.0, 0.1], [1.0, 0.2], [1.0, 0.8], [1.0, 0.9]])
    weights, bias = fitting._regression(fitting._scikit_learn(), values, np.array([0, 0, 1, 1]), 2)
    assert weights[:, 0].tolist() == [0, 0]
    assert np.isfinite(bias).all()


def test_fit_and_run_by_the_command_line_and_again_with_the_same_bytes(labelled: Path, haloflow: Call) -> None:
    words = ["fit", "config.yaml", "--labels", "labels.csv", "--cluster", "serial"]
    code, out, err = haloflow(*words)
    assert code == 0, err
    assert "votes fitted over 2 maps of 24 images (dark 8, light 8, striped 8): accuracy 1.0000 in 5-fold" in out
    written = Path("votes.yaml").read_bytes()
    code, out, _ = haloflow(*words, "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] == 1.0
    assert Path("votes.yaml").read_bytes() == written
    assert sorted(p.name for p in labelled.iterdir()) == ["config.yaml", "images", "labels.csv", "votes.yaml"]
    code, out, err = haloflow("run", "config.yaml", "--cluster", "serial")
    assert code == 0, err
    assert "decided: 24 planes of images: dark 8, light 8, striped 8" in out
    # Other votes are another run.
    Path("votes.yaml").write_text(written.decode().replace("bias:", "bias: {dark: 1, light: 2, striped: 3}\n_:"))
    Path("votes.yaml").write_text(Path("votes.yaml").read_text().partition("\n_:")[0])
    code, _, err = haloflow("run", "config.yaml", "--cluster", "serial", "--resume")
    assert code == 2
    assert "begun by a run that differs" in err


def test_planes_of_an_image_are_left_out_together(labelled: Path) -> None:
    """Of noise nothing can be learned, and planes that are alike must not tell of each other."""
    draw = np.random.default_rng(3)
    lines = ["image,label"]
    for n in range(16):
        planes = np.broadcast_to(draw.integers(0, 256, (12, 15)), (6, 12, 15)) + draw.integers(0, 3, (6, 1, 1))
        zarr.create_array(
            f"images/noise-{n}.zarr", data=planes.astype("u2"), chunks=(1, 12, 15), dimension_names=["z", "y", "x"]
        )
        lines.append(f"noise-{n},{'ab'[n % 2]}")
    Path("labels.csv").write_text("\n".join(lines))
    told = config()
    told["features"] = {f"f{n}": {"rows": draw.normal(size=(5, 5)).tolist()} for n in range(30)}
    told["layers"] = [{"type": "convolution", "features": [*told["features"]]}, *told["layers"][2:]]
    found = pipeline.fit(told, "labels.csv", cluster="serial")
    assert (found.images, found.folds) == (96, 5)
    assert found.accuracy < 0.75


def test_the_votes_serve_a_pool_with_a_window(labelled: Path) -> None:
    pipeline.fit("config.yaml", "labels.csv", cluster="serial")
    whole = config()
    whole["layers"][2] = {"type": "pool", "op": "max", "window": (12, 14), "stride": (3, 2)}
    windows = pipeline.load(whole).stack
    image = np.hstack([picture(kind, np.random.default_rng(3)) for kind in CLASSES])
    made = windows(image)
    assert made.shape[1] == 1
    for n, kind in enumerate(CLASSES):
        one = pipeline.load(config()).stack(image[:, 15 * n + n % 2 : 15 * n + n % 2 + 15])
        assert CLASSES[int(one.argmax())] == kind


REFUSED = [
    ("picture,label\na,b\n", "labels.csv: has no column image; its columns are picture, label"),
    ("a;b\n", "labels.csv: has no column image and no column label; its columns are a;b"),
    ("", "labels.csv: has no column image and no column label; its columns are none"),
    ("image,label\ndark-0,dark\nligth-0,light\n", "labels.csv:3: input.images has no image 'ligth-0'; did you mean"),
    ("image,label\nzzz,dark\n", "labels.csv:2: input.images has no image 'zzz'; there are: dark-0, "),
    (
        "image,label\ndark-0,dark\ndark-1,dark\n",
        "labels.csv: has labels of one class only (dark 2); votes decide between two or more",
    ),
    (
        "image,label\ndark-0,dark\ndark-1,dark\nlight-1,light\n",
        "labels.csv: has a class of one image (dark 2, light 1)",
    ),
    ("image,label\n", "labels.csv: has no labels; votes decide between two classes or more"),
    ("image,label\ndark-0,dark\ndark-0,light\n", "labels.csv:3: 'dark-0' is light, and in line 2 dark"),
    ("image,label\ndark-0,\n", "labels.csv:2: has no label"),
    ("image,label\n,dark\n", "labels.csv:2: has no image"),
    ("image,label\ndark-0,X/O\n", "labels.csv:2: 'X/O' cannot be the name of a class: it has no comma, slash"),
    (f"image,label\ndark-0,{101 * 'y'}\n", "cannot be the name of a class: it has no comma, slash or line break"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_labels_that_are_wrong_are_named(labelled: Path, haloflow: Call, text: str, words: str) -> None:
    Path("labels.csv").write_text(text)
    code, _, err = haloflow("fit", "config.yaml", "--labels", "labels.csv", "--cluster", "serial")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not Path("votes.yaml").exists()


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"layers": config()["layers"][:3]}, "layers: there is no layer of type vote to fit"),
    ({"layers": [*config()["layers"][:2], *config()["layers"][3:]]}, "layers: there is no global_pool before the vote"),
    ({"layers": [*config()["layers"][:3], {"type": "vote"}]}, "the vote names no file; say where the votes go with"),
    ({"layers": [*config()["layers"][:3], {"type": "vote", "file": 3}]}, "the vote names no file; say where the votes"),
    (
        {"layers": [*config()["layers"][:3], {"type": "vote", "file": ""}]},
        "layers[3].file: is empty; name the YAML file",
    ),
    ({"layers": [*config()["layers"][:3], {"type": "vote", "file": "images"}]}, "file: images: is a folder; name the"),
    ({"layers": [{"type": "convolution", "features": "no"}, *config()["layers"][2:]]}, "there is no feature 'no'"),
]


@pytest.mark.parametrize(("change", "words"), CONFIGS, ids=[words[-30:] for _, words in CONFIGS])
def test_configs_without_votes_to_learn_are_refused(
    labelled: Path, haloflow: Call, change: dict[str, Any], words: str
) -> None:
    Path("config.yaml").write_text(yaml.safe_dump(config(**change)))
    code, _, err = haloflow("fit", "config.yaml", "--labels", "labels.csv", "--cluster", "serial")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_votes_that_are_there_are_not_replaced_unasked(labelled: Path, haloflow: Call) -> None:
    Path("votes.yaml").write_text("mine")
    words = ["fit", "config.yaml", "--labels", "labels.csv", "--cluster", "serial"]
    code, _, err = haloflow(*words)
    assert (code, Path("votes.yaml").read_text()) == (2, "mine")
    assert "votes.yaml: exists already; give --overwrite to replace it, or another name" in err
    code, _, err = haloflow(*words, "--output", "images", "--overwrite")
    assert (code, "images: is a folder; name a file" in err) == (2, True)
    Path("link.yaml").symlink_to("config.yaml")
    for name, of in (("config.yaml", "config"), ("link.yaml", "config"), ("./labels.csv", "labels")):
        before = Path(name).read_bytes()
        code, _, err = haloflow(*words, "--output", name, "--overwrite")
        assert (code, Path(name).read_bytes()) == (2, before)
        assert f"{Path(name)}: holds the {of}; name another file with --output" in err
    code, _, err = haloflow(*words, "--output", "no/votes.yaml")
    assert code == 2
    assert "no/votes.yaml: there is no folder no" in err


def test_a_cluster_file_says_what_a_worker_may_hold(labelled: Path, haloflow: Call) -> None:
    Path("c.yaml").write_text("type: local\nworkers: 1\nmemory: 700MB\n")
    code, _, err = haloflow("fit", "config.yaml", "--labels", "labels.csv", "--cluster", "c.yaml")
    assert code == 0, err


def test_an_image_that_is_not_a_number_is_named(labelled: Path, haloflow: Call) -> None:
    zarr.create_array("images/odd.zarr", data=np.full((9, 9), np.nan, "f4"), chunks=(9, 9))
    with Path("labels.csv").open("a") as file:
        file.write("odd,dark\n")
    code, _, err = haloflow("fit", "config.yaml", "--labels", "labels.csv", "--cluster", "serial")
    assert code == 2
    assert "odd.zarr: map 'flat' is NaN or infinite" in err


def test_without_scikit_learn_the_extra_is_named(
    labelled: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, _, err = haloflow("fit", "config.yaml", "--labels", "labels.csv")
    assert code == 2
    assert err == "error: scikit-learn is not installed: pip install 'haloflow[fit]'\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("images --train 25 --test 50 --sides 64 200", "decided 100 images that the votes were not fitted on: "),
        ("mosaic --extent 768 --seed 2", " letters found and named, "),
    ],
    ids=["letters", "a mosaic"],
)
def test_x_and_o_are_told_apart(tmp_path: Path, words: str, told: str) -> None:
    """The short forms of scripts/xo: 99 of 100 letters that the votes were not fitted on, and those of a mosaic."""
    what, *rest = words.split()
    done = subprocess.run(
        [sys.executable, "scripts/xo.py", what, tmp_path, *rest],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert told in done.stdout
