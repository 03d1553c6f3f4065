"""The plan and the report in words and as plain data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dask.utils import parse_bytes

from pipeline.errors import PlanError, counted, listed, whole_number
from pipeline.kernels import TOLERANCE
from pipeline.kinds import Kinds

if TYPE_CHECKING:  # the plan prints itself through here
    from pipeline.planning import ImagePlan, Plan


def size(count: float) -> str:
    """Write a number of bytes as a user would.

    >>> size(81), size(2_600_000), size(3 * 2**30)
    ('81 B', '2.5 MiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def parse_size(written: str | int) -> int:
    """Return the bytes that a user means; raises `PlanError` where that is no number of bytes.

    >>> parse_size("500MiB"), parse_size(1024)
    (524288000, 1024)
    """
    try:
        found = int(parse_bytes(written if isinstance(written, str) else whole_number("memory", written)))
    except (TypeError, ValueError):
        found = 0
    if found < 1:
        raise PlanError(f"memory {written!r}: expected a number of bytes, or one such as 2GB or 500MiB")
    return found


def times(extents: Sequence[int]) -> str:
    """Write extents as a user would.

    >>> times((9, 12))
    '9 × 12'
    """
    return " × ".join(str(e) for e in extents)


def stored_as(kept: dict[str, Any]) -> str:
    """Say how a kept map is stored: its chunks, shards and compression, from the plan as plain data."""
    shards = f" in shards of {times(kept['shards'])}" if kept.get("shards") else ""
    levels = kept.get("levels", [])[1:]
    more = f", {len(levels)} more levels by {kept['pyramid']} to {times(levels[-1])}" if levels else ""
    return f"chunks {times(kept['chunks'])}{shards}, {kept['compression']}{more}"


def pixels(planes: dict[str, int], channels: int, extents: Sequence[int]) -> str:
    """Write the extents of an image: its planes along the outer axes, if it has these, and channels × height × width.

    >>> pixels({"t": 3, "z": 40}, 2, (9, 12)), pixels({}, 2, (9, 12))
    ('t 3 × z 40 × 2 × 9 × 12', '2 × 9 × 12')
    """
    return " × ".join([*(f"{name} {extent}" for name, extent in planes.items()), times([channels, *extents])])


def duration(seconds: float) -> str:
    """Write a rough time.

    >>> duration(0.2), duration(90), duration(7300)
    ('less than 1 s', '2 min', '2.0 h')
    """
    if seconds < 1:
        return "less than 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def plan_record(plan: "Plan", kinds: Kinds) -> dict[str, Any]:
    """Return what a store keeps of a plan: ``inputs`` are all paths by their names, ``images`` those looked at."""
    inputs = plan.inputs
    return {
        "store": str(plan.store),
        "memory_limit": plan.memory,
        "tolerance": TOLERANCE,
        "inputs": inputs,
        "images": kinds.to_list(inputs),
    }


def plan_dict(plan: "Plan") -> dict[str, Any]:
    """Return a plan as plain data, sizes in bytes and pixels."""
    kinds, tasks, peak = Kinds(image_dict), 0, 0
    for image in plan.images:
        kinds.add(image)
        tasks, peak = tasks + len(image.blocks), max(peak, image.peak_memory)
    return {
        **plan_record(plan, kinds),
        "tasks": tasks,
        "peak_memory": peak,
        "bad": [{"path": path, "reason": reason} for path, reason in plan.bad],
    }


def image_dict(image: "ImagePlan") -> dict[str, Any]:
    """Return the plan of an image as plain data."""
    last = len(image.stack.operations) - 1
    composed = image.stack.window(last)
    firsts = {place: image.stack.operations[layers[0]].name for layers in image.passes for place in layers}
    layers = [
        {
            "name": operation.name,
            "type": operation.kind,
            "kernel": choice.backend,
            "pass": firsts[place],
            "reason": choice.reason,
            "maps": list(operation.maps),
            "extents": list(extents),
            "window": [w.size for w in operation.windows],
            "stride": [w.stride for w in operation.windows],
            "dilation": [w.dilation for w in operation.windows],
            "padding": [[w.pad_lo, w.pad_hi] for w in operation.windows],
            "receptive_field": [w.span for w in image.stack.window(place)],
        }
        for place, (operation, choice, extents) in enumerate(
            zip(image.stack.operations, image.stack.choices, image.extents[1:], strict=True)
        )
    ]
    return {
        "name": image.source.name,
        "path": image.source.path,
        "channels": list(image.source.channels),
        "planes": {axis.name: axis.extent for axis in image.source.outer},
        "extents": list(image.source.extents),
        "chunks": list(image.source.chunks),
        "missing_chunks": image.missing,
        "sharded": image.source.unit != image.source.grain,
        "fill": image.source.fill,
        "dtype": image.source.dtype,
        "black": image.scale.ends[0],
        "white": image.scale.ends[1],
        "notes": list(image.notes),
        "layers": layers,
        "receptive_field": [w.span for w in composed],
        "stride": [w.stride for w in composed],
        "halo": [max(0, w.span - w.stride) for w in composed],
        "kept": [
            {
                "layer": k.array.layer,
                "extents": list(k.array.extents),
                "chunks": list(k.array.chunks),
                "dtype": k.array.encoding.dtype,
                "shards": list(k.array.shards) if k.array.shards else None,
                "compression": str(k.array.compression),
                "ome_zarr": k.array.version,
                "pyramid": k.array.shrink,
                "levels": [list(level.extents) for level in k.array.levels],
            }
            for k in image.kept
        ],
        "looked_at": [
            {
                "layer": k.array.layer,
                "extents": list(k.array.extents),
                "halo": list(k.watch.halo),
                "detections": k.watch.detections and k.watch.detections.model_dump(mode="json"),
                "summaries": k.watch.summaries and k.watch.summaries.model_dump(mode="json"),
                "after": [o.name for o in image.after.operations] if k.watch.joins and image.after else [],
            }
            for k in image.made
            if k.watch
        ],
        "tasks": len(image.blocks),
        "empty": image.count - len(image.blocks),
        "task_step": list(image.grid.step),
        "groups": [
            {
                "layers": [operation.name for operation in image.stack.operations[group.first : group.end]],
                "tile": list(group.tile),
            }
            for group in image.task.groups
        ],
        "recompute": round(image.recompute, 3),
        "bytes_read": image.bytes_read,
        "bytes_written": image.bytes_written,
        "peak_memory": image.peak_memory,
        "seconds": round(image.seconds, 3),
    }


def plan_text(plan: "Plan", most: int = 3) -> str:
    """Return a plan in words; of many images one of each kind, and of many kinds the first few."""
    told = plan_dict(plan)
    count = len(told["inputs"]) - len(told["bad"])
    lines = [f"plan for {plan.store}: {counted(count, 'image')}, {counted(told['tasks'], 'task')}"]
    for image in told["images"][:most]:
        lines += ["", *_image_lines(image)]
        if image["alike"]:
            lines.append(f"  alike     {counted(len(image['alike']), 'more image')}, each of as many tasks")
    lines += [f"cannot be run: {bad['path']}: {bad['reason']}" for bad in told["bad"]]
    if rest := told["images"][most:]:
        more = sum(1 + len(image["alike"]) for image in rest)
        lines += ["", f"… and {counted(more, 'more image')} of {counted(len(rest), 'other kind')} (all with --json)"]
    lines += [
        "",
        f"a worker    {size(told['peak_memory'])} at its peak, of {size(plan.memory)} allowed",
        f"exactness   the same bits for every chunking, task size and number of workers; kernels agree with a "
        f"float64 reference to {TOLERANCE:g} of a map's scale",
    ]
    return "\n".join(lines)


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _looked_at(looked: dict[str, Any]) -> str:
    """Say what tables are made of a map, and what a task makes besides to make them."""
    told = []
    if peaks := looked["detections"]:
        most = f", the {peaks['top']} greatest" if peaks["top"] else ""
        told.append(
            f"detections of at least {peaks['threshold']:g}{most} ({peaks['format']}), for which a task makes "
            f"{peaks['distance']} pixels of the map around its own"
        )
    if looked["summaries"]:
        told.append("summaries (parquet)")
    if looked["after"]:
        told.append(f"decisions, by {', '.join(looked['after'])} at the end of the run")
    return f"{looked['layer']} {times(looked['extents'])} for {' and '.join(told)}"


def _missing(image: dict[str, Any]) -> str:
    value = "the fill value" if image["fill"] is None else f"the fill value, {image['fill']:g}"
    if image["missing_chunks"] is None:
        return f"it is not known which chunks are stored; those that are not are {value}"
    count, unit = image["missing_chunks"], "shard" if image["sharded"] else "chunk"
    return f"{counted(count, unit)} {'is' if count == 1 else 'are'} not stored: {value}"


def _are_named(channels: Sequence[str]) -> bool:
    """Say whether channels are called otherwise than by their numbers."""
    return any(name != str(number) for number, name in enumerate(channels))


def _image_lines(image: dict[str, Any]) -> list[str]:
    kernels = {layer["name"]: layer["kernel"] for layer in image["layers"]}
    rows = [("layer", "kernel", "maps", "extent", "window", "receptive field")]
    for layer in image["layers"]:
        kernel = kernels[layer["pass"]]
        kernel += f", with {layer['pass']}" if kernel != layer["kernel"] else ""
        window = times(layer["window"])
        window += f" / {times(layer['stride'])}" if layer["stride"] != [1, 1] else ""
        window += f" dilated {times(layer['dilation'])}" if layer["dilation"] != [1, 1] else ""
        window += " same" if layer["padding"] != [[0, 0], [0, 0]] else ""
        rows.append(
            (
                layer["name"],
                kernel,
                str(len(layer["maps"])),
                times(layer["extents"]),
                window,
                times(layer["receptive_field"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = [f"{la['name']}: {la['reason']}" for la in image["layers"] if la["reason"]]
    kept = [f"{k['layer']} {times(k['extents'])} {k['dtype']}, {stored_as(k)}" for k in image["kept"]]
    return [
        f"{image['name']} ({image['path']})",
        f"  input     {pixels(image['planes'], len(image['channels']), image['extents'])} {image['dtype']}, "
        f"chunks {times(image['chunks'])}; {image['black']:g} means -1, {image['white']:g} means +1",
        *([f"  channels  {listed(image['channels'])}"] if _are_named(image["channels"]) else []),
        *([f"  missing   {_missing(image)}"] if image["missing_chunks"] != 0 else []),
        *(f"  note      {note}" for note in image["notes"]),
        *("  " + ("layers    " if not n else "          ") + row for n, row in enumerate(table)),
        *(f"            {reason}" for reason in reasons),
        f"  halo      {times(image['halo'])} input pixels, stride {times(image['stride'])}",
        *(f"  keep      {line}" for line in kept or ["no maps"]),
        *(f"  look at   {line}" for line in map(_looked_at, image["looked_at"])),
        *(
            [f"  empty     {image['empty']} more blocks see only the fill value: not read, not written"]
            if image["empty"]
            else []
        ),
        f"  tasks     {image['tasks']}, each {times(image['task_step'])} input pixels and halo, computing "
        f"{image['recompute']:.2f} × what the whole image needs",
        *(
            f"  {'' if n else 'groups':9} {_span(group['layers'])} in tiles of {times(group['tile'])}"
            for n, group in enumerate(image["groups"])
        ),
        f"  bytes     {size(image['bytes_read'])} read, {size(image['bytes_written'])} written (before compression)",
        f"  memory    {size(image['peak_memory'])} for a worker",
        f"  time      {duration(image['seconds'])} on one worker, roughly",
    ]
