"""The jobs of the benchmark, with what must be reached in each."""

from functools import cache

import numpy as np

from benchmark.jobs import Job, Layer, Target, Weights

SIGMA = 8.0
"""Of the separable job's Gaussian, in pixels."""

TRUNCATE = 4.0
"""Where the Gaussian is cut off, in sigmas."""

VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""VGG-16's convolution part: maps of each convolution, 0 for a pool."""


def _bounded(count: int, size: int) -> Weights:
    """Random features whose maps stay in −1 … 1, so that integers can hold them."""
    drawn = np.random.default_rng(size).standard_normal((count, 1, size, size))
    return np.asarray(drawn / np.abs(drawn).sum(axis=(1, 2, 3), keepdims=True), np.float32)


def _tame(count: int, depth: int, seed: int) -> Weights:
    """He's initialisation: through ReLUs the maps keep their spread, however deep the stack."""
    drawn = np.random.default_rng(seed).standard_normal((count, depth, 3, 3))
    return np.asarray(drawn * np.sqrt(2 / (9 * depth)), np.float32)


def _gaussian() -> Weights:
    radius = int(TRUNCATE * SIGMA + 0.5)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SIGMA) ** 2)
    line /= line.sum()
    return np.outer(line, line)[None, None].astype(np.float32)


def _vgg() -> tuple[Layer, ...]:
    layers: list[Layer] = []
    depth = 3
    for count in VGG:
        if count:
            layers += [_tame(count, depth, len(layers)), "relu"]
            depth = count
        else:
            layers.append("pool")
    return tuple(layers)


@cache
def jobs() -> dict[str, Job]:
    """Return every job by name, in the order in which they run."""
    narrow: tuple[Layer, ...] = (_bounded(3, 3), "relu", "pool")
    everyone = ("haloflow", "limit", "onnxruntime", "dyna-zarr", "opencv", "torch", "dask-image", "cubed")
    wide: tuple[Layer, ...] = (
        _tame(16, 3, 1),
        "relu",
        "pool",
        _tame(16, 16, 2),
        "relu",
        "pool",
        _tame(32, 16, 3),
        "relu",
        "pool",
    )
    alone = Target(("limit", "onnxruntime"), time_at_most=1.15)
    single = ("haloflow", "haloflow-1-worker"), (Target(("haloflow-1-worker",), speed_at_least=1.8),)
    found = [
        Job(
            "narrow",
            "3 features of 3², ReLU, max pool 2; float32 out",
            narrow,
            everyone,
            (
                Target(("limit",), speed_at_least=0.80),
                Target(("dask-image",), speed_at_least=8),
                Target(("opencv",), speed_at_least=4),
                Target(("dyna-zarr",), speed_at_least=2.5),
            ),
        ),
        *(
            Job(
                f"narrow-{dtype}",
                f"the same; {dtype} out",
                narrow,
                ("haloflow", "limit"),
                (Target(("limit",), speed_at_least=0.75),),
                dtype=dtype,
            )
            for dtype in ("float16", "int8")
        ),
        Job(
            "middle",
            "8 features of 5², ReLU, max pool 2",
            (_bounded(8, 5), "relu", "pool"),
            ("haloflow", "limit", "onnxruntime", "opencv", "torch"),
            (Target(("limit",), speed_at_least=0.65),),
        ),
        Job(
            "wide",
            "RGB; 3 → 16 → 16 → 32 maps, features of 3², ReLU and max pool 2 each",
            wide,
            ("haloflow", "limit", "onnxruntime", "torch"),
            (alone, Target(("torch",), speed_at_least=4)),
            channels=3,
            boundary="constant",
            shrink=4,
        ),
        Job(
            "vgg",
            "RGB; the convolution part of VGG-16, random weights",
            _vgg(),
            ("haloflow", "limit", "onnxruntime"),
            (Target(("limit", "onnxruntime"), time_at_most=1.2),),
            channels=3,
            boundary="constant",
            shrink=16,
            share=2,
            recompute_at_most=1.25,
            verified=False,
        ),
        *(
            Job(
                f"large{size}",
                f"{count} feature{'s' * (count > 1)} of {size}²",
                (_bounded(count, size),),
                ("haloflow", "limit", "scipy-fft", "scipy-correlate"),
                (Target(("scipy-fft",), speed_at_least=0.7), Target(("scipy-correlate",), speed_at_least=10)),
            )
            for count, size in ((4, 31), (1, 101))
        ),
        Job(
            "separable",
            f"Gaussian, sigma {SIGMA:g}, cut off at {TRUNCATE:g} sigmas",
            (_gaussian(),),
            ("haloflow", "limit", "scipy-gaussian"),
            (Target(("scipy-gaussian",), speed_at_least=3),),
        ),
        Job("workers", "the narrow job with two workers and with one", narrow, *single),
        Job(
            "workers-wide",
            "the wide job with two workers and with one",
            wide,
            *single,
            channels=3,
            boundary="constant",
            shrink=4,
        ),
    ]
    return {job.name: job for job in found}
