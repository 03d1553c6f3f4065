"""The JSON Schema of a config accepts what the reader accepts, and refuses most of what it refuses."""

import pytest

from pipeline.config import schema
from pipeline.document import parse
from pipeline.layers import LAYERS
from tests.test_config import BASE, ROOT, UNKNOWN_KEYS, broken


def wrong(value, rule, defs):  # noqa: PLR0911 - a rule, a return
    """Say whether a value breaks a JSON Schema rule: as much of the standard as ours uses."""
    if "$ref" in rule:
        return wrong(value, defs[rule["$ref"].removeprefix("#/$defs/")], defs)
    options = rule.get("anyOf", rule.get("oneOf"))
    if options and all(wrong(value, option, defs) for option in options):
        return True
    if value not in rule.get("enum", [value]) or value != rule.get("const", value):
        return True
    kinds = {
        "string": str,
        "array": list,
        "object": dict,
        "integer": int,
        "number": int | float,
        "null": type(None),
    }
    if "type" in rule and not isinstance(value, kinds[rule["type"]]):
        return True
    if isinstance(value, dict):
        known, others = rule.get("properties", {}), rule.get("additionalProperties", True)
        if rule.get("required") and not set(rule["required"]) <= value.keys():
            return True
        if others is False and not value.keys() <= known.keys():
            return True
        rules = {key: known.get(key, others if isinstance(others, dict) else {}) for key in value}
        return any(wrong(value[key], rules[key], defs) for key in value)
    if isinstance(value, list):
        heads = rule.get("prefixItems", [rule.get("items", {})] * len(value))
        return not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)) or any(
            wrong(v, r, defs) for v, r in zip(value, heads, strict=False)
        )
    return isinstance(value, int | float) and value < rule.get("minimum", value)


def test_the_schema_accepts_what_is_valid_and_names_every_layer():
    made = schema()
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(made["properties"]["layers"]["items"]["discriminator"]["mapping"]) == set(LAYERS)
    tables = "out.zarr\n  layers: []\n  summaries: {}"
    for text in (BASE, BASE.replace("out.zarr", tables), (ROOT / "configs" / "xo.yaml").read_text()):
        assert not wrong(parse(text, "f").data, made, made["$defs"])


SCHEMA_REFUSES = [
    *((old, new) for old, new, _ in UNKNOWN_KEYS),
    ("type: pool", "type: pol"),
    ("padding: same", "padding: sam"),
    ("out.zarr", "out.zarr\n  dtype: float64"),
    ("name: small", "window: 2.5"),
    ("name: small", "window: [1, 2, 3]"),
    ("name: small", "stride: [1, 0]"),
    ("padding: same", "bias: [1, x]"),
    ("features: [edge], ", ""),
    ("a.zarr", "[a, 3]"),
    ("a.zarr", "[]"),
    ("features: [edge]", "features: []"),
]


@pytest.mark.parametrize(("old", "new"), SCHEMA_REFUSES, ids=lambda text: text[-40:])
def test_the_schema_refuses_what_the_reader_refuses(tmp_path, old, new):
    broken(tmp_path, old, new)
    made = schema()
    assert wrong(parse(BASE.replace(old, new), "f").data, made, made["$defs"])
