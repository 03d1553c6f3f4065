"""The contestants, a file each; a file is imported when its contestant is entered, so its packages may be missing."""
