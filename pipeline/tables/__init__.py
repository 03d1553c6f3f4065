"""What a run tells of maps in tables, beside the maps or in their place: their peaks, and what they sum up to.

A task looks at its block of a map, and at a halo around it, and what it finds goes into its record: so a block is done
when its part of the tables is written, and never counts twice. The end of a run puts the parts together.
"""
