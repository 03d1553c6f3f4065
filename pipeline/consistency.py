"""Whether the parts of a config fit together: the names that one has for another, and thresholds and their layers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pipeline.document import Document, Path
from pipeline.errors import ConfigError, nearest
from pipeline.layers import Layer
from pipeline.layers.base import ANY, Limits
from pipeline.sections import Output
from pipeline.stack import layer_names

Families = Mapping[str, tuple[str, ...]]
"""The members of each feature by its name: of one that is no family itself."""


def check(layers: Sequence[Layer], families: Families, output: Output, document: Document) -> None:
    """Raise `ConfigError` that lists what does not fit, a line each."""
    names = layer_names(layers)
    members = {member: family for family, its in families.items() for member in its if member != family}
    wrong = [
        f"{document.where(('features', name))}: the name '{name}' is that of a member of the family '{members[name]}'"
        for name in families
        if name in members
    ]
    for place, layer in enumerate(layers):
        wrong += [f"{document.where(('layers', place, *path))}: {reason}" for path, reason in _uses(layer, families)]
        if names[place] in names[:place]:
            at = document.where(("layers", place))
            wrong.append(f"{at}: the name '{names[place]}' is taken by an earlier layer")
    summed = output.summaries
    for path, listed in (("layers",), output.layers), (("summaries", "layers"), summed and summed.layers):
        wrong += [f"{document.where(('output', *path))}: '{name}' stands twice" for name in _doubled(listed or ())]
    wrong += [
        f"{document.where(('output', *path))}: there is no layer '{name}'; {nearest(name, names)}"
        for path, name in _named(output)
        if name not in names
    ]
    wrong += [f"{document.where(path)}: {reason}" for path, reason in _joined(layers, names, output)]
    if not wrong:
        wrong = [f"{document.where(('output', *path))}: {reason}" for path, reason in _beyond(layers, names, output)]
    if wrong:
        raise ConfigError("\n".join(wrong))


def _uses(layer: Layer, families: Families) -> Iterator[tuple[Path, str]]:
    """Give what is wrong about the features that a layer names, and where in it."""
    members = {member: family for family, its in families.items() for member in its}
    unknown = [name for name in layer.uses if name not in families and name not in members]
    for name in unknown:
        valid = [*families, *families.get(name.split("/")[0], ())]
        yield ("features",), f"there is no feature '{name}'; {nearest(name, valid)}"
    if unknown:
        return
    try:
        named = layer.naming(families).uses
    except ValueError as error:
        yield (), str(error)
        return
    for name in _doubled(layer.uses) or _doubled(named):
        of = f", once in the family '{members[name]}'" if layer.uses.count(name) == 1 else ""
        yield ("features",), f"'{name}' stands twice{of}: two maps would have one name; leave one of them out"


def _doubled(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _named(output: Output) -> Iterator[tuple[Path, str]]:
    """Give the layers that the output names, and where."""
    yield from ((("layers",), name) for name in output.layers or ())
    if output.detections and output.detections.layer:
        yield ("detections", "layer"), output.detections.layer
    if output.summaries:
        yield from ((("summaries", "layers"), name) for name in output.summaries.layers or ())


def _joined(layers: Sequence[Layer], names: Sequence[str], output: Output) -> Iterator[tuple[Path, str]]:
    """Give what is wrong about a layer that joins whole maps: nothing before it, or maps wanted of those behind it."""
    joins = next((place for place, layer in enumerate(layers) if layer.joins_all), len(names))
    if not joins:
        yield ("layers", 0), f"'{names[0]}' joins the maps of the layer before it, and there is none"
    for path, name in _named(output):
        if name in names[joins:]:
            yield ("output", *path), f"'{name}' makes one pixel of each whole map: it goes to the table of decisions"


def _beyond(layers: Sequence[Layer], names: Sequence[str], output: Output) -> Iterator[tuple[Path, str]]:
    """Give the thresholds that lie outside of all values of their layer, where these are known, and what is wrong."""
    detections, summaries = output.detections, output.summaries
    names = names[: next((n for n, layer in enumerate(layers) if layer.joins_all), len(names))]
    limits, given = dict[str, Limits](), ANY
    for name, layer in zip(names, layers, strict=False):
        limits[name] = given = layer.limits(given)
    asked: list[tuple[Path, float, Sequence[str]]] = []
    if detections:
        asked.append((("detections", "threshold"), detections.threshold, (detections.layer or names[-1],)))
    if summaries and summaries.over is not None:
        asked.append((("summaries", "over"), summaries.over, summaries.layers or names[-1:]))
    for path, threshold, looked_at in asked:
        if not any(limits[name][0] <= threshold <= limits[name][1] for name in looked_at):
            low, high = limits[looked_at[0]]
            at = f"the layer '{looked_at[0]}'"
            yield path, f"{threshold:g} is outside of {low:g} to {high:g}, the values of {at}"
