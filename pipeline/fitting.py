"""Learn votes from labelled images: a linear classifier of what the layers before the vote make of each image."""

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.api import plan, run
from pipeline.clusters import memory_of
from pipeline.config import opened, vote_file
from pipeline.document import Document
from pipeline.errors import ConfigError, InputError, OutputError, RunError, counted, yes_or_no
from pipeline.execute.watching import Event
from pipeline.job import load
from pipeline.labels import read as labels_of
from pipeline.storage.findings import TABLES
from pipeline.storage.images import find_apart, stem
from pipeline.storage.target import check_file
from pipeline.tables.formats.csv import Csv

FOLDS = 5
"""Of the cross-validation, at the most: no more than the smallest class has images."""


@dataclass(frozen=True)
class Fit:
    """What was learned.

    ``accuracy`` is the share of images that votes fitted without them decide right, over ``folds`` parts. Planes count
    as images, and those of one image are left out together.
    """

    output: str
    images: int
    classes: dict[str, int]
    features: int
    accuracy: float
    folds: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @property
    def words(self) -> str:
        """Say what was learned of what."""
        counts = ", ".join(f"{label} {count}" for label, count in self.classes.items())
        return (
            f"votes fitted over {counted(self.features, 'map')} of {counted(self.images, 'image')} ({counts}): "
            f"accuracy {self.accuracy:.4f} in {self.folds}-fold cross-validation"
        )

    def __str__(self) -> str:
        return f"{self.words}; written to {self.output}"


def fit(
    config: str | Path | Mapping[str, Any],
    labels: str | Path,
    output: str | Path | None = None,
    *,
    settings: Iterable[str] = (),
    cluster: str = "local",
    workers: int | None = None,
    memory: str | int | None = None,
    kernel: str | None = None,
    overwrite: bool = False,
    progress: Callable[[Event], None] | None = None,
) -> Fit:
    """Learn the weights and biases of a config's vote from labelled images, and write them as a file of votes.

    The layers before the first `vote`, a `global_pool` among them, are run over the labelled images. What they make of
    each is scaled to a deviation of 1 and fitted by scikit-learn's `LogisticRegression` (L2, C = 1); the scales go into
    the weights. The same images and labels give the same votes.

    Parameters
    ----------
    config
        A YAML file's path, or a mapping of the same form. Its vote need not have weights yet.
    labels
        A CSV file with the columns ``image``, a name as in the output store (a path's last part without ``.zarr``) or
        the end of a path, and ``label``. Images without a label are not read.
    output
        The YAML file to write; by default the one that the config's vote names.
    overwrite
        Replace that file.
    settings, cluster, workers, memory, kernel, progress
        As of `pipeline.load`, `pipeline.plan` and `pipeline.run`.

    Raises
    ------
    HaloflowError
        `ConfigError` where the config has no vote behind a global_pool; `InputError` that names the label or image that
        is wrong, or the extra ``fit`` where scikit-learn is not installed; `OutputError` where the file is there or
        cannot be written; `RunError` where an image cannot be run.
    TypeError
        Where ``overwrite`` is neither True nor False.
    """
    yes_or_no(overwrite=overwrite)
    document = opened(config, settings)
    named = _cut(document)
    where = output or named
    if where is None:
        raise ConfigError(
            f"{document.where(('layers',))}: the vote names no file; say where the votes go with --output"
        )
    target = _target(where, {"config": config, "labels": labels}, overwrite=overwrite)
    learn = _scikit_learn()
    with tempfile.TemporaryDirectory(prefix="haloflow-fit-") as folder:
        document.data["output"] = {"store": f"{folder}/fit.zarr", "decisions": {"format": "csv"}}
        job = load(document)
        if job.stack.layers.local == len(job.stack.names):
            raise ConfigError(
                f"{document.where(('layers',))}: there is no global_pool before the vote; 'fit' learns from one pixel "
                "for each map of an image: put a global_pool in the place of the pool, and use the votes with either"
            )
        places = {stem(str(place)): place for place in find_apart(job.config.input.images, job.options)}
        wanted = labels_of(Path(labels), [str(place) for place in places.values()])
        document.data["input"]["images"] = [str(places[name]) for name in wanted]
        planned = plan(load(document), memory=memory_of(cluster, memory), kernel=kernel)
        report = run(planned, cluster, workers, progress=progress)
        if not report.complete:
            first = report.failures[0]
            raise RunError(f"{len(report.failures)} failed, the first {first['image']}: {first['reason']}")
        table = Csv.read(io.BytesIO(planned.store.read(f"{TABLES}/decisions.csv") or b""))
    maps = [name.removeprefix("score_") for name in table if name.startswith("score_")]
    values = np.array([table[f"score_{name}"] for name in maps], np.float64).T
    for image, row in zip(table["image"], values, strict=True):
        if not np.isfinite(row).all():
            raise InputError(f"{places[image]}: map '{maps[int(np.argmin(np.isfinite(row)))]}' is NaN or infinite")
    names = np.array(table["image"])
    told = np.array([wanted[image] for image in table["image"]])
    classes, folds, accuracy, weights, bias = _learned(learn, values, names, told)
    counts = {label: int((told == label).sum()) for label in classes}
    found = Fit(str(target), len(told), counts, len(maps), accuracy, folds)
    _write(target, found, maps, weights, bias)
    return found


def _cut(document: Document) -> str | None:
    """Leave of a config's layers those before the first vote; return the file that this names."""
    layers = document.data.get("layers")
    places = [n for n, layer in enumerate(layers or ()) if isinstance(layer, dict) and layer.get("type") == "vote"]
    if not isinstance(layers, list) or not places:
        raise ConfigError(f"{document.where(('layers',))}: there is no layer of type vote to fit")
    file = vote_file(document, places[0])
    del layers[places[0] :]
    return file


def _target(where: str | Path, given: Mapping[str, Any], *, overwrite: bool) -> Path:
    """Return the file where the votes go; `OutputError` where it cannot be written, or is one that is ``given``."""
    target = Path(where)
    check_file(target, overwrite=True)  # what is given is refused first, whatever may be replaced
    for kind, other in given.items():
        if isinstance(other, str | Path) and target.exists() and Path(other).exists() and target.samefile(other):
            raise OutputError(f"{target}: holds the {kind}; name another file with --output")
    check_file(target, overwrite=overwrite)
    return target


def _scikit_learn() -> Any:
    try:
        return tuple(import_module(f"sklearn.{part}") for part in ("linear_model", "model_selection"))
    except ImportError:
        raise InputError("scikit-learn is not installed: pip install 'haloflow[fit]'") from None


Numbers = NDArray[np.float64]


def _learned(
    learn: Any, values: Numbers, names: NDArray[Any], given: NDArray[Any]
) -> tuple[list[str], int, float, Numbers, Numbers]:
    """Return the classes, folds and accuracy of the cross-validation, and the votes: weights (class, map), biases."""
    _, selection = learn
    classes, numbers = np.unique(given, return_inverse=True)
    first = np.sort(np.unique(names, return_index=True)[1])  # of each image the first plane
    images, labels = names[first], numbers[first]
    folds = int(min(FOLDS, np.bincount(labels).min()))
    right = 0
    for _, part in selection.StratifiedKFold(folds, shuffle=True, random_state=0).split(images, labels):
        test = np.isin(names, images[part])
        weights, bias = _regression(learn, values[~test], numbers[~test], len(classes))
        right += int(((values[test] @ weights.T + bias).argmax(axis=1) == numbers[test]).sum())
    weights, bias = _regression(learn, values, numbers, len(classes))
    return [str(label) for label in classes], folds, right / len(numbers), weights, bias


def _regression(learn: Any, values: Numbers, numbers: NDArray[np.int64], classes: int) -> tuple[Numbers, Numbers]:
    """Return weights (class, map) and biases by which a softmax gives the regression's probabilities."""
    middle, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread <= 1e-12 * np.abs(values).max(axis=0)] = np.inf  # a map that is the same for all tells nothing
    model = learn[0].LogisticRegression(C=1.0, max_iter=10_000).fit((values - middle) / spread, numbers)
    weights, bias = model.coef_ / spread, model.intercept_
    if classes == 2:
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias - weights @ middle


def _write(path: Path, found: Fit, maps: Sequence[str], weights: Numbers, bias: Numbers) -> None:
    """Write a file of votes, whole or not at all."""
    votes = {
        "weights": {
            label: {name: _rounded(w) for name, w in zip(maps, row, strict=True)}
            for label, row in zip(found.classes, weights, strict=True)
        },
        "bias": {label: _rounded(b) for label, b in zip(found.classes, bias, strict=True)},
    }
    text = f"# {found.words}\n{yaml.safe_dump(votes, sort_keys=False, allow_unicode=True, width=110)}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from None


def _rounded(number: float) -> float:
    """Return a number of the digits that float32 has."""
    return float(f"{number:.9g}")
