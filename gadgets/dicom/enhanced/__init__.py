"""Enhanced MR Image Storage: a whole series in one file (PS3.3 A.36.2), from the frames of MR Image Storage.

- `instances`: which frames share a file, and the file
- `modules`: what holds for all of its frames
- `functional_groups`: what belongs to a frame, in the shared or the per-frame functional groups
- `anatomy`: codes of body parts
"""
