"""Gadgets: stream item in, stream item out; the floor that knows ISMRMRD, Gadgetron and DICOM."""

import priors as priors  # first: it sets the environment that torch reads when it is imported
