"""What a run has made is held against the raw input: maps, the levels of their pyramids, and tables."""
