"""NIfTI files of series, with the geometry and the values of the DICOM files.

- `volumes`: from a stack of slices (`gadgets.dicom.stacks`) to a NIfTI image
- `sidecar`: the JSON file that goes with it, in the words of BIDS and dcm2niix
- `files`: names, and the files of a whole scan
"""
