"""Images of a kind: of thousands that differ in name and place only, one is described."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the plan is described through here
    from pipeline.planning import ImagePlan


class Kinds:
    """Images by what their plans have in common: of each kind, which may be thousands of images, one is described.

    Parameters
    ----------
    describe
        Describes an image as plain data.
    known
        The descriptions of an earlier run, by the names of their kinds.
    """

    def __init__(
        self, describe: Callable[["ImagePlan"], dict[str, Any]], known: Mapping[str, dict[str, Any]] | None = None
    ) -> None:
        self._describe = describe
        self._described = dict(known or {})
        self._images: dict[str, list[str]] = {}
        self._names: dict[Any, str] = {}

    def of(self, image: "ImagePlan") -> str:
        """Return the name of an image's kind."""
        key = (image.source.kind, image.grid, image.task, image.cache, len(image.blocks))
        if key not in self._names:
            self._names[key] = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return self._names[key]

    def add(self, image: "ImagePlan") -> dict[str, Any] | None:
        """Take an image; return the description of its kind if it is the first."""
        kind = self.of(image)
        self.name(kind, image.source.name)
        if kind in self._described:
            return None
        self._described[kind] = self._describe(image)
        return self._described[kind]

    def name(self, kind: str, image: str) -> None:
        """Take an image of a known kind by its name."""
        self._images.setdefault(kind, []).append(image)

    @property
    def outer(self) -> list[str]:
        """The axes beside y and x that any of the images has."""
        planes = (self._described[kind]["planes"] for kind in self._images)
        return sorted({axis for one in planes for axis in one}, key="tz".index)

    def to_list(self, inputs: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return a description of the first image of each kind, with the names of those ``alike``."""
        return [
            {**self._described[kind], "name": first, "path": inputs[first], "alike": others}
            for kind, (first, *others) in self._images.items()
        ]


def images_of(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the description of each image of a plan that is plain data."""
    for described in plan["images"]:
        yield described
        for name in described.get("alike", ()):
            yield {**described, "name": name, "path": plan["inputs"][name], "alike": []}
