"""Noise of another measurement: where it is found, and whether it is for the scan at hand."""
