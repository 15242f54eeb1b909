"""Packages for the scanner: Siemens Open Recon and FIRE."""
