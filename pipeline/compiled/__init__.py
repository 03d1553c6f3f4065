"""Loops compiled for this machine, by Numba: what NumPy would do in many passes over memory, done in one.

Compiled code is kept on disk (beside the package, or in the user's cache folder), so that only the first process ever
waits for it. Numba looks at one file to tell whether its copy is old: a file whose compiled functions are made with
others names these and what they hold, in ``MADE_WITH``, so that it changes with them (``tests/test_structure.py`` tells
how it must read).

No loop here is compiled with relaxed arithmetic: a vector loop and its remainder round alike, and sums have one order.
"""
