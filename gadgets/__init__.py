"""Gadgets: stream item in, stream item out; the floor that knows ISMRMRD, Gadgetron and DICOM.

Public are the names and properties that chains give in XML (docs/gadgets.md). The Python code is internal, and may
change at any time.
"""

import priors as priors  # first: it sets the environment that torch reads when it is imported
