"""Every way a config can be wrong, and the words that say so: file, line, key and the nearest valid name."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.config import Config, read
from pipeline.errors import ConfigError, nearest
from pipeline.layers import LAYERS

ROOT = Path(__file__).parents[1]

BASE = """\
input:
  images: a.zarr
features:
  edge: {rows: [[1, 2], [3, 4]]}
  dot: "#"
layers:
  - {type: convolution, features: [edge], padding: same}
  - {type: pool, name: small}
output:
  store: out.zarr
"""

CHANNELS = "expected a channel's name, its number from 0, or a list of them; found"
CONVOLUTION_KEYS = "bias, boundary, channels, dilation, features, fill, match, name, padding, stride, type"
KINDS = (
    "abs, clip, convolution, global_pool, leaky_relu, normalise, pool, relu, sigmoid, softmax, tanh, threshold, vote"
)
PAIR = "expected a whole number, or a pair of them for y and x; found"


def broken(tmp_path, old, new):
    assert BASE.count(old) == 1, f"{old} must stand in the base once"
    path = tmp_path / "c.yaml"
    path.write_text(BASE.replace(old, new))
    with pytest.raises(ConfigError) as refused:
        read(path)
    return str(refused.value).replace(str(path), "c.yaml")


UNKNOWN_KEYS = [
    ("input:\n", "inptu: 1\ninput:\n",
     ("1: inptu: unknown key; did you mean 'input'? "
      "(valid: features, input, layers, output)")),
    ("a.zarr", "a.zarr\n  blakc: 0",
     ("3: input.blakc: unknown key; did you mean 'black'? "
      "(valid: black, channels, images, level, missing, region, t, white, z)")),
    ("out.zarr", "out.zarr\n  chunk: 8",
     ("11: output.chunk: unknown key; did you mean 'chunks'? "
      "(valid: chunks, compression, decisions, detections, dtype, layers, ome_zarr, pyramid, range, shards, "
      "store, summaries)")),
    ("padding: same", "strides: 2",
     ("7: layers[0].strides: unknown key; did you mean 'stride'? "
      f"(valid: {CONVOLUTION_KEYS})")),
    ("name: small", "zzzzz: 1",
     ("8: layers[1].zzzzz: unknown key; "
      "valid: name, op, partial, stride, type, window")),
    ("[3, 4]]", "[3, 4]], cols: 1", "4: features.edge.cols: unknown key; valid: rotate, rows, scale"),
    ("rows: [[1, 2], [3, 4]]", "crop: {image: a, y: 0, x: 0, height: 2, widht: 2, width: 2}",
     "4: features.edge.crop.widht: unknown key; did you mean 'width'? "
     "(valid: channels, height, image, level, t, width, x, y, z)"),
]  # fmt: skip

NAMES = [
    ("features: [edge]", "features: [egde]",
     "7: layers[0].features: there is no feature 'egde'; did you mean 'edge'? (valid: dot, edge)"),
    ("type: pool", "type: pol",
     f"8: layers[1].type: there is no layer type 'pol'; did you mean 'pool'? (valid: {KINDS})"),
    ("type: pool, ", "", "8: layers[1].type: is missing"),
    ("out.zarr", "out.zarr\n  layers: [smal]",
     "11: output.layers: there is no layer 'smal'; did you mean 'small'? (valid: convolution, small)"),
    ("a.zarr", "a.zarr\n  black: 5\n  white: 5.0", "1: input: black and white are both 5; they must differ"),
    ("out.zarr", "out.zarr\n  layers: pool",
     "11: output.layers: there is no layer 'pool'; valid: convolution, small"),
    ("name: small", "name: convolution", "8: layers[1]: the name 'convolution' is taken by an earlier layer"),
    ("padding: same", "padding: sam",
     "7: layers[0].padding: 'sam' is not possible; did you mean 'same'? (valid: same, valid)"),
    ("out.zarr", "out.zarr\n  dtype: float64",
     ("11: output.dtype: 'float64' is not possible; "
      "did you mean 'float16'? (valid: float16, float32, int16, int8, uint16, uint8)")),
    ("rows: [[1, 2], [3, 4]]", "row: [[1]]",

     ("4: features.edge: expected a picture of '#', '.' and '0', or one of the keys rows, file, crop, generate; "
      "found {'row': [[1]]}")),
]  # fmt: skip

TYPES = [
    ("a.zarr", "[]", "2: input.images: list should have at least 1 item, not 0; found ()"),
    ("a.zarr", "[a, 3]", "2: input.images[1]: should be a string; found 3"),
    ("a.zarr", "a.zarr\n  level: true", "3: input.level: should be an integer; found True"),
    ("a.zarr", "a.zarr\n  level: 1.0", "3: input.level: should be an integer; found 1.0"),
    ("a.zarr", "a.zarr\n  level: -1", "3: input.level: should be greater than or equal to 0; found -1"),
    ("a.zarr", "a.zarr\n  channels: true", f"3: input.channels: {CHANNELS} True"),
    ("a.zarr", "a.zarr\n  channels: -1", f"3: input.channels: {CHANNELS} -1"),
    ("a.zarr", "a.zarr\n  channels: [DAPI, 1.5]", f"3: input.channels: {CHANNELS} ['DAPI', 1.5]"),
    ("a.zarr", "a.zarr\n  black: '0'", "3: input.black: should be a number; found '0'"),
    ("a.zarr", "a.zarr\n  white: no", "3: input.white: should be a number; found 'no'"),
    ("a.zarr", "a.zarr\n  black: .inf", "3: input.black: should be a finite number; found inf"),
    ("name: small", "window: true", f"8: layers[1].window: {PAIR} True"),
    ("name: small", "window: '2'", f"8: layers[1].window: {PAIR} '2'"),
    ("name: small", "window: 2.5", f"8: layers[1].window: {PAIR} 2.5"),
    ("name: small", "window: [1, 2, 3]", f"8: layers[1].window: {PAIR} [1, 2, 3]"),
    ("name: small", "stride: 0", "8: layers[1].stride: should be greater than or equal to 1; found 0"),
    ("name: small", "stride: [1, 0]",
     "8: layers[1].stride[1]: should be greater than or equal to 1; found 0"),
    ("name: small", "stride: [true, 1]", "8: layers[1].stride[0]: should be an integer; found True"),
    ("name: small", "name: 5", "8: layers[1].name: should be a string; found 5"),
    ("name: small", "name: a/b",
     "8: layers[1].name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9_-]*$'; found 'a/b'"),
    ("padding: same", "bias: '1'", "7: layers[0].bias: should be a number; found '1'"),
    ("padding: same", "bias: [1, x]", "7: layers[0].bias[1]: should be a number; found 'x'"),
    ("features: [edge], ", "", "7: layers[0].features: is missing"),
    ("features: [edge]", "features: []",
     "7: layers[0].features: list should have at least 1 item, not 0; found ()"),
    ("rows: [[1, 2], [3, 4]]", "rows: 3", "4: features.edge.rows: should be a list; found 3"),
    ("rows: [[1, 2], [3, 4]]", "crop: {y: 0, x: 0, height: 1, width: 1}",
     "4: features.edge.crop.image: is missing"),
    ("rows: [[1, 2], [3, 4]]", "crop: {image: a, y: 0, x: 0, width: 8000, height: 8000}",
     "4: features.edge.crop: 8000 × 8000 pixels are too many for a feature (at most 16777216)"),
    ("store: out.zarr", "store: ''", "10: output.store: string should have at least 1 character; found ''"),
    ("  store: out.zarr", "  dtype: int8", "9: output.store: is missing"),
    ("output:\n  store: out.zarr\n", "", "1: output: is missing"),
]  # fmt: skip

NO_EFFECT = [
    ("padding: same", "fill: 1", "7: layers[0]: boundary and fill have no effect without 'padding: same'"),
    ("padding: same", "boundary: reflect",
     "7: layers[0]: boundary and fill have no effect without 'padding: same'"),
    ("padding: same", "padding: same, boundary: reflect, fill: 0",
     "7: layers[0]: fill has no effect unless boundary is 'constant'"),
    ("padding: same", "bias: [1, 2]", "7: layers[0]: bias has 2 numbers for 1 feature"),
    ("out.zarr", "out.zarr\n  range: [0, 1]", "9: output: range has no effect on float32"),
    ("out.zarr", "out.zarr\n  dtype: int8\n  range: [1, 1]",
     "9: output: range goes from 1 to 1; the first must be less"),
    ("out.zarr", "out.zarr\n  dtype: int8\n  range: [-1.0e308, 1.0e308]",
     "9: output: range goes from -1e+308 to 1e+308, which is wider than any number"),
    ("out.zarr", "out.zarr\n  dtype: int8\n  range: [0, 1.0e-307]",
     "9: output: range goes from 0 to 1e-307, closer than any two numbers of float32 are"),
    ("out.zarr", "out.zarr\n  compression: gzip",
     "11: output.compression: expected lz4, zstd, none, or a codec and its level; found 'gzip'"),
    ("out.zarr", "out.zarr\n  compression: {codec: lz4, level: 12}",
     "11: output.compression: lz4 has the levels 1 to 9; found 12"),
    ("out.zarr", "out.zarr\n  compression: {codec: zstd, levl: 3}",
     "11: output.compression.levl: unknown key; did you mean 'level'? (valid: codec, level)"),
    ("out.zarr", "out.zarr\n  compression: {codec: none, level: 3}",
     "11: output.compression: level has no effect without a codec"),
    ("out.zarr", "out.zarr\n  shards: 64",
     "9: output: shards needs chunks, too: the pixels of a chunk, of which a shard holds several"),
    ("out.zarr", "out.zarr\n  shards: 64\n  chunks: [32, 30]",
     "9: output: shards of 64 × 64 do not hold whole chunks of 32 × 30; make them a multiple"),
    ("out.zarr", "out.zarr\n  shards: 64\n  chunks: 32\n  ome_zarr: 0.4",
     "9: output: OME-Zarr 0.4 has no shards; leave out shards, or take ome_zarr '0.5'"),
    ("out.zarr", "out.zarr\n  pyramid: min", "11: output.pyramid: 'min' is not possible; valid: max, mean"),
    ("out.zarr", "out.zarr\n  ome_zarr: 0.6",
     "11: output.ome_zarr: '0.6' is not possible; did you mean '0.5'? (valid: 0.4, 0.5)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"), UNKNOWN_KEYS + NAMES + TYPES + NO_EFFECT, ids=lambda text: text[-60:]
)
def test_a_broken_config_is_refused_in_exactly_these_words(tmp_path, old, new, message):
    assert broken(tmp_path, old, new) == f"c.yaml:{message}"


@pytest.mark.parametrize("layers", ["[]", "{}", "relu", "[null]", "[5]", "[relu]", "[[relu]]"])
def test_layers_that_are_none_are_refused_at_their_place(tmp_path, layers):
    path = tmp_path / "c.yaml"
    path.write_text(f"input: {{images: a}}\nlayers: {layers}\noutput: {{store: o}}")
    with pytest.raises(ConfigError) as refused:
        read(path)
    place = "layers[0]: " if layers.startswith("[") and layers != "[]" else "layers: "
    assert str(refused.value).startswith(f"{path}:2: {place}")
    assert "\n" not in str(refused.value)


def test_the_only_layer_being_wrong_is_told_once(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("input: {images: a}\nlayers:\n - {type: pool, windw: 2}\noutput: {store: o}")
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert str(refused.value) == (
        f"{path}:3: layers[0].windw: unknown key; did you mean 'window'? "
        "(valid: name, op, partial, stride, type, window)"
    )


def test_everything_wrong_is_told_at_once_a_line_each(tmp_path):
    text = BASE.replace("padding", "pading").replace("store", "stor").replace("a.zarr", "7")
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read(path)
    told = [line.split(";")[0].removeprefix(str(path)) for line in str(refused.value).splitlines()]
    assert told == [
        ":2: input.images: should be a list",
        ":7: layers[0].pading: unknown key",
        ":9: output.store: is missing",
        ":10: output.stor: unknown key",
    ]


def test_a_good_config_is_read_with_its_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(BASE)
    config, document = read(path, ["layers.1.window=3", "output.chunks=[64, 32]", "input.black=7"])
    assert config.input.images == ("a.zarr",)
    assert (config.input.black, config.input.white, config.input.level) == (7, None, 0)
    assert config.layers[1] == LAYERS["pool"](type="pool", name="small", window=3)
    assert (config.output.chunks, config.output.dtype, config.output.layers) == ((64, 32), "float32", None)
    assert document.where(("layers", 1, "window")) == "--set: layers[1].window"
    with pytest.raises(ValueError, match="frozen"):
        config.output.store = "elsewhere"


def test_a_mapping_serves_as_a_config_and_is_left_alone():
    mapping = yaml.safe_load(BASE)
    before = copy.deepcopy(mapping)
    config, _ = read(mapping, ["output.chunks=8", "layers.1.window=3", "features.new='#'"])
    assert config.output.chunks == (8, 8)
    assert mapping == before


def test_a_mapping_may_hold_paths_and_what_numpy_makes():
    mapping = yaml.safe_load(BASE)
    config, _ = read(mapping)
    mapping["input"]["images"] = (Path(config.input.images[0]),)
    mapping["output"]["store"] = Path(config.output.store)
    mapping["layers"][0]["stride"] = np.int64(1)
    mapping["features"]["rows"] = {"rows": np.eye(3)}
    made, document = read(mapping)
    assert (made.input, made.output) == (config.input, config.output)
    assert json.loads(json.dumps(document.data))["features"]["rows"] == {"rows": np.eye(3).tolist()}
    assert document.data["input"]["images"] == list(config.input.images)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({}, "config: input: is missing"),
        ({"input": 5}, "config: input: expected keys and their values; found 5"),
        (
            {"layers": ["relu"]},
            r"config: layers\[0\]: expected keys and their values; found 'relu'; write 'type: relu'",
        ),
        ({"layers": [{"relu": None}]}, r"config: layers\[0\].type: is missing; write 'type: relu'"),
        ({5: 1}, "keys should be strings"),
    ],
)
def test_a_mapping_that_is_no_config_is_refused(mapping, words):
    with pytest.raises(ConfigError, match=words):
        read(mapping)


def test_one_text_is_no_list_of_settings():
    with pytest.raises(ConfigError, match=r"settings: expected a list of 'key.path=value', not the text 'a.b=1'"):
        read({}, "a.b=1")


def test_the_nearest_name_is_suggested_only_if_it_is_near():
    assert nearest("strid", ["stride", "name"]) == "did you mean 'stride'? (valid: name, stride)"
    assert nearest("xyz", ["stride"]) == "valid: stride"
    assert nearest("xyz", []) == "valid: none"


def test_each_config_of_the_repository_is_valid():
    found = sorted((ROOT / "configs").glob("*.yaml"))
    assert found
    for path in found:
        assert isinstance(read(path)[0], Config)
