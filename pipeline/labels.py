"""The table of the labels of images that votes are fitted on."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from pipeline.errors import HaloflowError, InputError, listed, nearest
from pipeline.layers.vote import as_class
from pipeline.storage.images import stem

COLUMNS = ("image", "label")


def read(path: Path, images: Sequence[str]) -> dict[str, str]:
    """Return the labels by the names of the images, in the table's order.

    Parameters
    ----------
    path
        A CSV file with the columns ``image``, the name of an image or the end of its path (of one within a Zarr group
        from there on, or more), and ``label``.
    images
        The paths of all images there are, each of a name of its own.

    Raises
    ------
    InputError
        Names the line of a label of no image, of two labels of an image, or what else is wrong; also where there are
        too few to learn from.
    """
    known = {stem(image): image for image in images}
    found: dict[str, tuple[str, int]] = {}
    for line, image, label in _rows(path):
        name = stem(image)
        if name not in known:
            hint, bracket, _ = nearest(name, known if len(known) <= 10**4 else ()).partition("? (")
            there = f"there are: {listed(known, 5)}"
            told = f"{hint}{bracket}{there})" if bracket else there
            raise InputError(f"{path}:{line}: input.images has no image '{image}'; {told}")
        if not _is_path(image, known[name]):
            raise InputError(
                f"{path}:{line}: input.images has no image '{image}': that of this name is {known[name]}; give the end "
                "of its path, or its name alone"
            )
        if name in found and found[name][0] != label:
            raise InputError(f"{path}:{line}: '{image}' is {label}, and in line {found[name][1]} {found[name][0]}")
        found.setdefault(name, (label, line))
    _refuse_few(path, Counter(label for label, _ in found.values()))
    return {name: label for name, (label, _) in found.items()}


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Give each row's line, image and label."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            rows.fieldnames = columns = [name.strip() for name in rows.fieldnames or ()]
            if lacking := [name for name in COLUMNS if name not in columns]:
                raise InputError(
                    f"{path}: has no column {' and no column '.join(lacking)}; its columns are "
                    f"{', '.join(columns) or 'none'}"
                )
            if several := [f"{columns.count(name)} columns {name}" for name in COLUMNS if columns.count(name) > 1]:
                raise InputError(f"{path}: has {' and '.join(several)}; leave one of them")
            for row in rows:
                image, label = ((row[name] or "").strip() for name in COLUMNS)
                at = f"{path}:{rows.line_num}"
                if not label or not image:
                    raise InputError(f"{at}: has no {'label' if image else 'image'}")
                try:
                    as_class(label)
                except ValueError as error:
                    raise InputError(f"{at}: {error}") from None
                yield rows.line_num, image, label
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except HaloflowError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _is_path(given: str, image: str) -> bool:
    """Say whether what is given, of the name of an image, is its path or the end of that."""
    folders = PurePath(given).parts[:-1]
    whole = PurePath(image) if "://" in image else Path(image).absolute()
    return whole.parts[-1 - len(folders) : -1] == folders or Path(given).resolve() == Path(image).resolve()


def _refuse_few(path: Path, counts: Counter[str]) -> None:
    told = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
    if not counts:
        raise InputError(f"{path}: has no labels; votes decide between two classes or more")
    if len(counts) < 2:
        raise InputError(f"{path}: has labels of one class only ({told}); votes decide between two or more")
    if min(counts.values()) < 2:
        raise InputError(f"{path}: has a class of one image ({told}); give at least two of each, better dozens")
