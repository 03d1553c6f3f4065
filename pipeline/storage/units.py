"""The units of OME-Zarr in metres and seconds."""

_PREFIXES = {
    "yotta": 24, "zetta": 21, "exa": 18, "peta": 15, "tera": 12, "giga": 9, "mega": 6, "kilo": 3, "hecto": 2, "deca": 1,
    "": 0, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9, "pico": -12, "femto": -15, "atto": -18,
    "zepto": -21, "yocto": -24,
}  # fmt: skip
_OTHERS = {
    "angstrom": (1e-10, "m"), "foot": (0.3048, "m"), "inch": (0.0254, "m"), "mile": (1609.34, "m"),
    "parsec": (3.0856775814913673e16, "m"), "yard": (0.9144, "m"), "minute": (60.0, "s"), "hour": (3600.0, "s"),
    "day": (86400.0, "s"),
}  # fmt: skip


def base_unit(unit: str | None) -> tuple[float, str]:
    """Return a unit as a number of metres or seconds; one that is neither, as itself without a unit.

    >>> base_unit("micrometer"), base_unit(None)
    ((1e-06, 'm'), (1.0, ''))
    """
    if unit in _OTHERS:
        return _OTHERS[unit]
    for whole, short in (("meter", "m"), ("second", "s")):
        if unit and unit.endswith(whole) and unit.removesuffix(whole) in _PREFIXES:
            return float(f"1e{_PREFIXES[unit.removesuffix(whole)]}"), short
    return 1.0, ""
