"""One family of errors. Each says, in the user's words, what was found, what was expected and what to do."""

import difflib
import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class HaloflowError(Exception):
    """Base of all errors that are the user's to mend; ``exit_code`` is what the command line ends with."""

    exit_code = 2


class ConfigError(HaloflowError):
    """The config is not valid: an unknown key, a wrong type, a name that does not exist."""


class FeatureError(HaloflowError):
    """A feature cannot be made: a ragged picture, a missing file, a crop outside its image."""


class StackError(HaloflowError):
    """The layers do not fit together or do not fit the image: channel counts, a feature larger than its map."""


class InputError(HaloflowError):
    """An input image is missing, is not what it should be, or cannot be read."""


class PlaceError(HaloflowError):
    """A path or URL cannot be used: its kind is unknown, it cannot be reached, or access to it is denied."""


class OutputError(HaloflowError):
    """The output store exists already, lies inside an input, or cannot be written."""


class PlanError(HaloflowError):
    """The run as planned cannot fit: the forecast of a worker's memory is over the limit."""


class ClusterError(HaloflowError):
    """The cluster cannot be reached or started."""


class ViewError(HaloflowError):
    """The viewer cannot be started: it is not installed, or its port is taken."""


class RunError(HaloflowError):
    """The run could not come to its end, or ended with failed tasks; what did not fail is complete."""

    exit_code = 3


AGAIN = "what was written is recorded: go on with --resume"
"""What to do about a run that could not come to its end."""


@contextmanager
def writing_to(store: object) -> Iterator[None]:
    """Turn what the system answers to a run's own writing of its store into a `RunError` that names the store."""
    try:
        yield
    except OSError as error:
        why = error.strerror or explain(error)
        raise RunError(f"{store} cannot be written: {why}; mend that, and run again with --resume") from None


class HaloflowWarning(UserWarning):
    """What a user should know, and what hinders no work."""


def whole_number(name: str, value: Any) -> int:
    """Return a count that a user gives, NumPy's integers among them; raises `TypeError` that names it.

    >>> whole_number("windows", 1.5)
    Traceback (most recent call last):
    TypeError: windows: expected a whole number, not 1.5
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, not {value!r}") from None


def yes_or_no(**given: Any) -> None:
    """Refuse what stands for True or False and is neither, such as "no", which Python takes for True.

    >>> yes_or_no(resume=False, overwrite="no")
    Traceback (most recent call last):
    TypeError: overwrite: expected True or False, not 'no'
    """
    for name, value in given.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected True or False, not {value!r}")


def explain(error: BaseException) -> str:
    """Return an error in one line; ours speak for themselves.

    >>> explain(KeyError("a")), explain(RunError("out.zarr cannot be written"))
    ("KeyError: 'a'", 'out.zarr cannot be written')
    """
    text = str(error).strip().splitlines()
    if text and isinstance(error, HaloflowError):
        return text[0]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def counted(number: int, what: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return names with commas between them, of many the first.

    >>> listed("abcd", 2)
    'a, b and 2 more'
    """
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return what to suggest in place of an unknown name: the nearest valid one, and all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, 1)
    known = f"valid: {', '.join(names) or 'none'}"
    return f"did you mean '{close[0]}'? ({known})" if close else known
