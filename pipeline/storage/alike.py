"""Images whose metadata are alike: opened once, for what differs between them are names."""

from collections import OrderedDict
from dataclasses import replace

from pipeline.storage.images import Documents, digest_from, documents, open_image, opened, refuse_escape, stem
from pipeline.storage.place import Place
from pipeline.storage.source import Source

KNOWN = 64
"""Kinds of images that are remembered."""


class Opener:
    """Opens the images of a run; of a local one whose metadata are those of an earlier one, these are just read.

    They are the same byte for byte. To understand metadata takes a millisecond and more, to read them some hundredths.
    """

    def __init__(self, level: int) -> None:
        self._level = level
        self._known: OrderedDict[Documents, tuple[str, Documents, Source]] = OrderedDict()

    def open(self, place: Place) -> Source:
        """Return the source at a place; raises `InputError` where there is none."""
        if not place.is_local:  # to ask for its metadata twice would take longer than to understand them
            return open_image(place, self._level, "input.level")
        try:
            found = documents(place)
        except (OSError, ValueError):
            found = ()
        if not found:  # what is wrong with it is said when it is opened, if it still is
            return open_image(place, self._level, "input.level")
        known = self._known.get(found)
        if known is not None:
            below, inside, source = known
            array = place / below if below else place
            if not below or documents(array) == inside:
                self._known.move_to_end(found)
                if below:
                    refuse_escape(place, array)
                return replace(source, name=stem(str(place)), path=str(place), array=array)
        source, _ = opened(place, self._level, "input.level")
        below = str(source.array).removeprefix(str(place)).strip("/")
        inside = documents(source.array) if below else ()
        source = replace(source, digest=digest_from([found, inside] if below else [found]))
        self._known[found] = (below, inside, source)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return source
