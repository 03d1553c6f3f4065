"""A file a verb of the command line, or a few that belong together.

Modules that take long to load are imported by the command that needs them, so that ``haloflow --help`` answers at once.
"""
