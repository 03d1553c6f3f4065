"""Kernel backends: right within the tolerance, the same bits for every block, and chosen for reasons."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import kernels
from pipeline.errors import PlanError
from pipeline.geometry import Interval, cells, whole
from pipeline.given import within
from pipeline.kernels import BACKENDS, TOLERANCE, choose, kernel_for
from pipeline.kernels.base import Backend
from pipeline.layers import LAYERS

DEPTHS = (1, 2, 3, 5, 7, 8, 9, 12, 16, 17, 33, 130)
COUNTS = (1, 3, 8, 17)


def convolution(depth, count, size, **params):
    rng = np.random.default_rng([depth, count, *size])
    each = params.get("channels") == "each"
    shape = size if each else (depth, *size)
    features = {f"f{i}": rng.standard_normal(shape) for i in range(count)}
    layer = LAYERS["convolution"](type="convolution", features=tuple(features), **params)
    return layer.bind("match", tuple(map(str, range(depth))), features)


def products(inputs, count, size, **params):
    """A convolution of each map with features that are the product of a column and a row."""
    rng = np.random.default_rng([count, *size])
    features = {f"f{i}": np.outer(*(rng.standard_normal(n) for n in size)) for i in range(count)}
    layer = LAYERS["convolution"](type="convolution", features=tuple(features), channels="each", **params)
    return layer.bind("match", tuple(map(str, range(inputs))), features)


def other(kind, maps=3, **params):
    return LAYERS[kind](type=kind, **params).bind(kind, tuple(map(str, range(maps))), {})


def block_for(operation, made, seed=5):
    """A block of input values under ``made`` output pixels, and its region."""
    read = [w.reach(Interval(0, n)) for w, n in zip(operation.windows, made, strict=True)]
    shape = (operation.inputs, *map(len, read))
    return np.random.default_rng(seed).standard_normal(shape, np.float32), read


OPERATIONS = {
    "3 maps": convolution(3, 4, (3, 4)),
    "sum and bias": convolution(2, 3, (5, 2), match="sum", bias=(1.0, -2.0, 0.0)),
    "strides and dilation": convolution(9, 5, (4, 3), stride=(2, 3), dilation=(3, 1)),
    "each": convolution(5, 2, (3, 3), channels="each", bias=0.25),
    "one pixel": convolution(17, 3, (1, 1), match="sum"),
    "wide": convolution(1, 2, (15, 16)),
    "products": products(2, 3, (9, 14), stride=(2, 3), dilation=(1, 2)),
    "one product": products(1, 1, (17, 8), match="sum", bias=1.0),
    "130 maps": convolution(130, 17, (3, 3), match="sum"),
    "normalised": convolution(2, 3, (9, 14), match="ncc", bias=(0.5, 0.0, -1.0), stride=(2, 1)),
    "normalised, each": convolution(2, 2, (4, 3), match="ncc", channels="each", dilation=(1, 3)),
    "max": other("pool", window=3),
    "min": other("pool", op="min", window=(2, 3), stride=(1, 4)),
    "mean": other("pool", op="mean", window=(3, 2)),
    "relu": other("relu"),
    "abs": other("abs"),
    "clip": other("clip", low=-0.5, high=0.75),
    "leaky_relu": other("leaky_relu", slope=0.3),
    "normalise": other("normalise", scale=(1.5, -2.0, 0.1), offset=3.0),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", OPERATIONS)
def test_a_kernel_gives_the_float64_result_within_the_tolerance(case, backend):
    operation = OPERATIONS[case]
    if not BACKENDS[backend].supports(operation):
        assert choose(operation, backend).backend == "numpy"
        return
    block, _ = block_for(operation, (19, 22))
    before = block.copy()
    ours = kernel_for((operation,), backend)(block)
    exact = operation.block(block.astype(np.float64), operation)
    assert exact.dtype == np.float64
    assert ours.dtype == np.float32
    assert ours.shape == exact.shape == (len(operation.maps), 19, 22)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=TOLERANCE * np.abs(exact).max())
    np.testing.assert_array_equal(block, before)  # a kernel leaves its input alone


def with_special_values(block):
    signs = np.sign(block)  # sums that come out as 0
    signs[:, :3] = -0.0
    height, width = block.shape[1:]
    for value, y, x in ((np.nan, 1, 2), (np.inf, 2, 3), (-np.inf, 3, 1), (1e-42, 2, 2), (3e38, 1, 1)):
        signs[-1, height * y // 4, width * x // 4] = value
    return signs


def assert_pieces_have_the_bits_of_the_whole(operation, backend, made, seed):
    kernel = np.errstate(all="ignore")(kernel_for((operation,), backend))
    block, read = block_for(operation, made, seed)
    if seed % 2:
        block = with_special_values(block)
    complete = kernel(block)
    assert complete.shape[1:] == made
    rng = np.random.default_rng(seed)
    pieces = [((0, 1), (0, 1)), ((0, 1), (0, made[1])), ((0, made[0]), (made[1] - 1, made[1]))]
    pieces += [[sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in made] for _ in range(4)]
    for wanted in pieces:
        piece = cells([Interval(*p) for p in wanted], BACKENDS[backend].cell(operation), made)
        rows, columns = (w.reach(p).within(r) for w, p, r in zip(operation.windows, piece, read, strict=True))
        part = kernel(block[:, rows, columns])
        expected = within(complete, piece, whole(made))
        np.testing.assert_array_equal(part.view("u4"), expected.copy().view("u4"), f"{piece} of {made}")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_pieces_have_the_bits_of_the_whole_in_the_chosen_kernel(depth, count):
    rng = np.random.default_rng([depth, count])
    sizes = [(1, 1), (9, 9), *(tuple(rng.integers(1, 10, 2).tolist()) for _ in range(3))]
    for seed, size in enumerate(sizes):
        stride, dilation = (tuple(rng.integers(1, top, 2).tolist()) for top in (4, 3))
        for params in ({}, {"stride": stride, "dilation": dilation, "bias": 0.5}):
            operation = convolution(depth, count, size, **params)
            made = tuple(rng.integers(8, 50, 2).tolist())
            assert_pieces_have_the_bits_of_the_whole(operation, choose(operation).backend, made, seed)


@pytest.mark.parametrize(("depth", "made"), [(1, (230, 301)), (3, (257, 129)), (8, (100, 190)), (40, (64, 133))])
def test_pieces_have_the_bits_of_a_large_whole(depth, made):
    operation = convolution(depth, 8, (5, 5), padding="same")
    assert_pieces_have_the_bits_of_the_whole(operation, choose(operation).backend, made, seed=1)


@pytest.mark.parametrize("case", OPERATIONS)
def test_pieces_have_the_bits_of_the_whole_in_numpy_and_in_each_layers_choice(case):
    for backend in {"numpy", choose(OPERATIONS[case]).backend}:
        assert_pieces_have_the_bits_of_the_whole(OPERATIONS[case], backend, (33, 41), seed=2)


def test_the_choice_is_the_cheapest_backend_that_supports_and_is_steady():
    assert choose(OPERATIONS["relu"]) == kernels.Choice("numba")
    assert choose(OPERATIONS["3 maps"]) == kernels.Choice("numba")
    assert choose(OPERATIONS["mean"]) == kernels.Choice("numba")
    assert choose(convolution(16, 16, (3, 3))) == kernels.Choice("winograd")
    wide = choose(convolution(64, 64, (5, 5)))
    assert wide.backend == "onnxruntime" or wide.reason


def test_no_count_of_maps_falls_back_to_plain_numpy():
    chosen = {choose(convolution(depth, count, (3, 3))).backend for depth in DEPTHS for count in COUNTS}
    assert "numpy" not in chosen


def test_a_forced_kernel_is_taken_or_numpy_with_the_reason():
    assert choose(OPERATIONS["3 maps"], "numpy") == kernels.Choice("numpy")
    fallen = choose(OPERATIONS["max"], "onnxruntime")
    assert fallen == kernels.Choice("numpy", "onnxruntime has none for pool")


def test_an_unknown_kernel_is_refused_with_the_names_there_are():
    with pytest.raises(
        PlanError,
        match="kernel 'cuda': there is no such kernel; there are fft, ncc, numba, numpy, onnxruntime, winograd",
    ):
        choose(OPERATIONS["relu"], "cuda")


def unsteady(operations):
    """A kernel that rounds as the block's width has it."""
    plain = BACKENDS["numpy"].build(operations)
    return lambda block: plain(block) * np.float32(1 + 2**-20 * (block.shape[2] % 2))


def fake(name, build=unsteady, cost=0.0):
    return Backend(name, supports=lambda _: True, build=build, cost=lambda _: cost, scratch=lambda *_: 0)


def test_an_unsteady_backend_is_not_chosen_and_the_plan_can_say_why(monkeypatch):
    monkeypatch.setattr(kernels, "BACKENDS", {"wobbly": fake("wobbly"), **BACKENDS})
    reason = "the rounding of wobbly depends on the block on this machine"
    assert choose(OPERATIONS["relu"]) == kernels.Choice("numba", reason)
    assert choose(OPERATIONS["relu"], "wobbly") == kernels.Choice("numpy", reason)


def test_a_steady_new_backend_of_lower_cost_is_chosen(monkeypatch):
    steady = fake("steady", BACKENDS["numpy"].build)
    monkeypatch.setattr(kernels, "BACKENDS", {"steady": steady, **BACKENDS})
    assert choose(OPERATIONS["mean"]) == kernels.Choice("steady")


def test_no_kernel_at_all_is_a_plan_error_that_names_the_layer(monkeypatch):
    monkeypatch.setattr(kernels, "BACKENDS", {"shaky": fake("shaky")})
    with pytest.raises(PlanError, match="layer 'relu' has no kernel: the rounding of shaky depends"):
        choose(OPERATIONS["relu"])


def test_kernels_are_built_once_for_equal_operations(monkeypatch):
    built = []

    def build(operations):
        built.append(operations)
        return BACKENDS["numpy"].build(operations)

    monkeypatch.setattr(kernels, "BACKENDS", {"counted": fake("counted", build)})
    one, same = convolution(2, 2, (3, 3)), convolution(2, 2, (3, 3))
    assert one is not same
    assert kernel_for((one,), "counted") is kernel_for((same,), "counted")
    assert len(built) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("windows", (convolution(2, 2, (3, 3), stride=2).windows)),
        ("fill", 0.5),
        ("average", True),
        ("options", {"divisor": 1}),
        ("arrays", convolution(2, 2, (3, 3), bias=0.5).arrays),
        ("kind", "other"),
    ],
)
def test_what_decides_an_operations_results_decides_its_kernel(field, value):
    one = convolution(2, 2, (3, 3))
    changed = replace(one, **{field: value})
    assert changed != one
    assert changed.digest != one.digest


@pytest.mark.parametrize(("depth", "bias"), [(1, 0.0), (3, 0.25), (7, -0.5), (16, 0.0), (33, 0.125)])
def test_a_relu_in_the_graph_of_a_wide_convolution_changes_no_bit(depth, bias):
    one, relu = convolution(depth, 17, (3, 2), match="sum", bias=bias), other("relu", 17)
    fused = BACKENDS["onnxruntime"].fuse((one, relu))
    assert fused == 2
    block = with_special_values(np.random.default_rng(depth).standard_normal((depth, 61, 83), np.float32))
    block[:, 20:40] *= np.float32(1e-42)  # sums that round to −0
    together = kernel_for((one, relu), "onnxruntime")(block)
    alone = kernel_for((one,), "onnxruntime")(block)
    apart = kernel_for((relu,), "numba")(alone)
    nan = np.isnan(apart)
    assert nan.any()
    np.testing.assert_array_equal(nan, np.isnan(together))
    np.testing.assert_array_equal(together.view("u4")[~nan], apart.view("u4")[~nan])


def test_a_division_or_another_layer_stays_outside_of_the_graph():
    mean, total = convolution(16, 4, (3, 3)), convolution(16, 4, (3, 3), match="sum")
    assert BACKENDS["onnxruntime"].fuse((mean, other("relu", 4))) == 1
    assert BACKENDS["onnxruntime"].fuse((total, other("pool", 4))) == 1
    assert BACKENDS["onnxruntime"].fuse((total,)) == 1


@pytest.mark.parametrize("backend", [name for name, backend in BACKENDS.items() if backend.writes])
@pytest.mark.parametrize("fused", [1, 3])
def test_a_kernel_writes_where_it_is_told_and_nowhere_else(backend, fused):
    operations = (convolution(3, 5, (3, 3)), other("relu", 5), other("pool", 5))[:fused]
    assert fused in (1, BACKENDS[backend].fuse(operations))
    kernel = kernel_for(operations, backend)
    block, _ = block_for(operations[0], (34, 70))
    expected = kernel(block)
    for top, left, height, width in ((0, 0, *expected.shape[1:]), (3, 5, 50, 90)):
        around = np.full((7, height, width), 7, np.float32)
        area = slice(top, top + expected.shape[1]), slice(left, left + expected.shape[2])
        out = around[1:6, *area]
        assert kernel(block, out) is out
        np.testing.assert_array_equal(out.view("u4"), expected.view("u4"))
        around[1:6, *area] = 7
        assert (around == 7).all()
