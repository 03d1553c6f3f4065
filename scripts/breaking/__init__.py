"""Runs broken on purpose: `scripts/chaos`."""
