"""DICOM: identity, geometry, pixels, modules, files, spool and PACS."""
