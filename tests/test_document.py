"""YAML text to plain data: what is read, what is refused, and where it says so."""

import math
import re
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import read
from pipeline.document import MAX_BYTES, MAX_DEPTH, Document, assign, parse, scalar, spell
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),  # YAML 1.1 would say False
        ("yes", "yes"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),  # YAML 1.1: a number in base 60
        ("2001-01-01", "2001-01-01"),
        ("1_000", "1_000"),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("1e-3", 0.001),  # YAML 1.1: a word
        ("1.e2", 100.0),
        ("-.5", -0.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("012", 12),  # YAML 1.1: octal
        ("0o17", 15),
        ("0x1F", 31),
        ("+7", 7),
        ("1.", 1.0),
        ("0x", "0x"),
        (".", "."),
        ("1e", "1e"),
        ("-", "-"),
        ("٣", "٣"),  # a digit, but none of YAML's
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_nan_and_numbers_too_long_to_be_counts():
    assert math.isnan(scalar(".nan"))
    assert scalar("1" * 5000) == math.inf  # no quadratic conversion of a long integer


def test_quoted_scalars_are_words():
    assert parse("a: '12'\nb: \"true\"\nc: |\n  1\nd: ''", "f").data == {
        "a": "12",
        "b": "true",
        "c": "1\n",
        "d": "",
    }


TEXT = """\
input:
  images: a.zarr   # a comment
features:
  one: |
    # .
    . #
layers:
  - {type: relu,
     name: first}
  - type: pool
    window: [2,
             3]
"""


def test_every_part_knows_its_line():
    document = parse(TEXT, "c.yaml")
    lines = {spell(path): line for path, line in document.lines.items()}
    assert lines == {
        "": 1,
        "input": 1,
        "input.images": 2,
        "features": 3,
        "features.one": 4,
        "layers": 7,
        "layers[0]": 8,
        "layers[0].type": 8,
        "layers[0].name": 9,
        "layers[1]": 10,
        "layers[1].type": 10,
        "layers[1].window": 11,
        "layers[1].window[0]": 11,
        "layers[1].window[1]": 12,
    }
    assert document.where(("layers", 1, "window", 1)) == "c.yaml:12: layers[1].window[1]"
    assert document.where(("layers", 1, "strid")) == "c.yaml:10: layers[1].strid"  # the nearest that stands there
    assert document.where(("nowhere",)) == "c.yaml:1: nowhere"


NAMES = st.text("abcxyz", min_size=1, max_size=5)
PLAIN = st.recursive(
    st.integers(-(10**6), 10**6) | st.booleans() | st.none() | NAMES | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, PLAIN, max_size=4), st.booleans())
def test_what_yaml_writes_is_read_back(data, flow):
    assert parse(yaml.safe_dump(data, default_flow_style=flow), "f").data == data


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "f:1: a0: anchors and aliases are not allowed"),
        ("a: 1\nb: *a", "f:2: b: anchors and aliases are not allowed"),
        ("&top\na: 1", "f:1: anchors and aliases"),
        ("a: 1\n&k b: 2", "f:2: b: anchors and aliases are not allowed"),
        ("a: 1\n? *b\n: 2", "f:1: a key must be a word"),
        (
            "a: !!python/object/apply:os.system ['true']",
            "the tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        (
            "a: !!binary aGk=",
            "f:1: a: the tag tag:yaml.org,2002:binary is not allowed; a config is plain data",
        ),
        ("a:\n  b: !local 1", "f:2: a.b: the tag !local is not allowed"),
        ("!!python/name:os.system a: 1", "the tag tag:yaml.org,2002:python/name:os.system"),
        ("a: 1\nb: 2\na: 3", "f:3: a: the key stands twice"),
        ("x:\n - {k: 1,\n    k: 2}", "f:3: x[0].k: the key stands twice"),
        ("[" * (MAX_DEPTH + 5), f"is nested deeper than {MAX_DEPTH} levels"),
        ("[" * 10_000, "nest"),  # libyaml may be the first to refuse it
        ("{a: " * 10_000, f"is nested deeper than {MAX_DEPTH} levels"),
        ("- " * 10_000, f"is nested deeper than {MAX_DEPTH} levels"),
        ("a: 1\n---\nb: 2", "f: holds more than one document; a config is one"),
        ("---\n---\n", "f: holds more than one document"),
        ("a:\n\tb: 1", "f:2: is not valid YAML: found character that cannot start any token"),
        ("a: [1, 2", "is not valid YAML"),
        ("a: 'open", "is not valid YAML"),
        ("a: b: c", "f:1: is not valid YAML: mapping values are not allowed"),
        ("a: \x01", "f: is not valid YAML: unacceptable character"),
        ("? [1, 2]\n: 3", "f:1: a key must be a word"),
        ("%YAML 9.9\n---\na: 1", "f:1: is not valid YAML: found incompatible YAML document"),
    ],
    ids=lambda text: text[:25],
)
def test_what_is_not_plain_data_is_refused_at_its_line_at_once(text, words):
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        parse(text, "f")
    assert time.perf_counter() - started < 1
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 10_000_000])
@pytest.mark.parametrize("text", ["a", "- ", "é", "&a "])
def test_a_large_text_or_file_is_refused_at_once(tmp_path, text, size):
    path = tmp_path / "large.yaml"
    path.write_text(text * (size // len(text.encode()) + 1), encoding="utf-8")
    started = time.perf_counter()
    for act in (lambda: read(path), lambda: parse(path.read_text(encoding="utf-8"), "f")):
        with pytest.raises(ConfigError, match="is larger than 1048576 bytes; a config is small"):
            act()
    assert time.perf_counter() - started < 1


def test_the_largest_text_allowed_is_read_or_refused_within_reason():
    text = "features:\n" + "".join(f"  f{i}: {{rows: [[1]]}}\n" for i in range(30_000))
    assert len(text) < MAX_BYTES
    assert len(parse(text, "f").data["features"]) == 30_000


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null"])
def test_an_empty_file_says_what_a_config_holds(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expected the keys input, features, layers, output"):
        read(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: ü".encode("latin-1"))
    for path, words in ((latin, "is not UTF-8 text (invalid"), (tmp_path, "is a folder; expected a YAML file")):
        with pytest.raises(ConfigError, match=re.escape(f"{path}: {words}")):
            read(path)
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'none.yaml'}: there is no such file")):
        read(tmp_path / "none.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key():
    assert parse("\ufeffa: 1", "f").data == {"a": 1}


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("layers.1.window=[4, 5]", ("layers", 1, "window"), [4, 5]),
        ("layers.0.name=", ("layers", 0, "name"), None),
        ("input.black=1e-3", ("input", "black"), 0.001),
        ("input.images=a=b.zarr", ("input", "images"), "a=b.zarr"),  # only the first = parts
        ("output.store=no", ("output", "store"), "no"),  # what is missing on the way is made
        ("features.two='# .'", ("features", "two"), "# ."),
        ("layers.1={type: relu}", ("layers", 1), {"type": "relu"}),
    ],
)
def test_a_setting_changes_one_value(setting, path, value):
    document = parse(TEXT, "c.yaml")
    assign(document, setting)
    found = document.data
    for part in path:
        found = found[part]
    assert found == value
    assert document.data["layers"][0]["type"] == "relu"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("layers", "--set layers: expected key.path=value"),
        ("=1", "--set =1: expected key.path=value"),
        ("layers.2.type=relu", "--set layers.2.type=relu: there is no layers[2] in c.yaml"),
        ("layers.-1.type=relu", "there is no layers.-1 in c.yaml"),
        ("layers.first.type=relu", "there is no layers.first in c.yaml"),
        ("input.images.0=b", "there is no input.images[0] in c.yaml"),
        ("a=[1", "is not valid YAML: did not find expected ',' or ']'"),
        ("a=!!python/none", "the tag tag:yaml.org,2002:python/none is not allowed"),
        (
            "output.store=scan #2.zarr",
            "YAML takes what follows '#' for a comment; a value with YAML's own signs goes in",
        ),
        ("features.x=#.", "YAML takes what follows '#' for a comment"),
        ("a=# .\n. #", "YAML takes what follows '#' for a comment"),
        ("a=[1, 2] # all", "YAML takes what follows '#' for a comment"),
        ("a=\udcff", "--set a="),  # bytes of the command line that are not UTF-8
    ],
)
def test_a_setting_that_fits_nowhere_is_refused(setting, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        assign(parse(TEXT, "c.yaml"), setting)


def test_a_setting_on_an_empty_document_is_refused():
    with pytest.raises(ConfigError, match=re.escape("there is no a in f")):
        assign(Document("f"), "a=1")


@pytest.mark.parametrize(("text", "value"), [('"scan #2.zarr"', "scan #2.zarr"), ("scan#2.zarr", "scan#2.zarr")])
def test_a_number_sign_that_is_no_comment_stays(text, value):
    document = parse(TEXT, "c.yaml")
    assign(document, f"name={text}")
    assert document.data["name"] == value
