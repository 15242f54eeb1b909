"""DICOM (MR Image Storage) from ISMRMRD images, and its way to a PACS.

- A dataset (`datasets`): who it belongs to (`identity`), where its pixels are in the patient (`geometry`), their values
  (`pixels`), and the modules `patient`, `equipment`, `series`, `mr_image` (how) and `times` (when).
- Files (`writer`), or files that wait (`spool`) until a thread (`sender`, `queue_state`) has sent them to a PACS
  (`destination`, `pacs`: `c_store` or `stow_rs`, whose `answers` decide); `delivery` is for all queues of a spool.
"""
