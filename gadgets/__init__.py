"""Gadgets: stream item in, stream item out; the floor that knows ISMRMRD, Gadgetron and DICOM."""

import priors as priors  # before torch: it sets how torch's threads wait
