"""Header texts as DICOM's defined terms and enumerated values: one of the list, or nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gadgets.dicom.values import Warn

# fmt: off
# PS3.16 table L-1, defined terms of BodyPartExamined.
BODY_PARTS = frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "ADRENAL", "ANKLE", "AORTA", "ARM", "AXILLA", "BACK", "BLADDER", "BRAIN",
    "BREAST", "BRONCHUS", "BUTTOCK", "CALCANEUS", "CALF", "CAROTID", "CEREBELLUM", "CERVIX", "CHEEK", "CHEST",
    "CHESTABDOMEN", "CHESTABDPELVIS", "CIRCLEOFWILLIS", "CLAVICLE", "COCCYX", "COLON", "CORNEA",
    "CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM", "EAR", "ELBOW", "ESOPHAGUS", "EXTREMITY", "EYE", "EYELID",
    "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM", "GALLBLADDER", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "HUMERUS",
    "IAC", "ILEUM", "ILIUM", "JAW", "JEJUNUM", "KIDNEY", "KNEE", "LARYNX", "LEG", "LIVER", "LSPINE", "LSSPINE", "LUNG",
    "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK", "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "NOSE",
    "ORBIT", "OVARY", "PANCREAS", "PAROTID", "PATELLA", "PELVIS", "PENIS", "PHARYNX",
    "PROSTATE", "RADIUS", "RECTUM", "RIB", "SCALP", "SCAPULA", "SCROTUM", "SHOULDER",
    "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "SUBMANDIBULAR", "TESTIS", "THIGH", "THUMB", "THYMUS",
    "THYROID", "TIBIA", "TLSPINE", "TMJ", "TOE", "TONGUE", "TRACHEA", "TSPINE", "ULNA", "URETER", "URETHRA", "UTERUS",
    "VAGINA", "VULVA", "WHOLEBODY", "WRIST", "ZYGOMA",
))
PAIRED_BODY_PARTS = frozenset((
    "ANKLE", "ARM", "BREAST", "CALF", "CLAVICLE", "EAR", "ELBOW", "EYE", "FEMUR", "FINGER", "FOOT",
    "FOREARM", "HAND", "HIP", "HUMERUS", "KIDNEY", "KNEE", "LEG", "ORBIT", "OVARY", "PATELLA", "RADIUS",
    "SCAPULA", "SHOULDER", "TESTIS", "THIGH", "THUMB", "TIBIA", "TOE", "ULNA", "WRIST",
))
# fmt: on

# Keys are upper case, letters and digits only.
BODY_PART_TERMS: Mapping[str, str] = {
    **{part: part for part in BODY_PARTS},
    **{"CERVICALSPINE": "CSPINE", "THORACICSPINE": "TSPINE", "LUMBARSPINE": "LSPINE", "SACRALSPINE": "SSPINE"},
}
SEX_TERMS: Mapping[str, str] = {"M": "M", "F": "F", "O": "O", "MALE": "M", "FEMALE": "F", "OTHER": "O"}
POSITION_TERMS: Mapping[str, str] = {  # PS3.3 C.7.3.1.1.2
    text: first + second
    for first, begin in (("HF", "HEADFIRST"), ("FF", "FEETFIRST"))
    for second, end in (("S", "SUPINE"), ("P", "PRONE"), ("DL", "DECUBITUSLEFT"), ("DR", "DECUBITUSRIGHT"))
    for text in (first + second, begin + end)
}
# Makers of MR scanners: what an anonymized file may say of systemVendor, which is free text.
VENDORS = {
    "SIEMENS": "SIEMENS",
    "GE": "GE MEDICAL SYSTEMS",
    "PHILIPS": "Philips",
    "CANON": "Canon",
    "TOSHIBA": "TOSHIBA",
    "UIH": "UIH",
    "UNITED": "UIH",
    "HITACHI": "Hitachi",
    "FUJIFILM": "FUJIFILM",
    "BRUKER": "Bruker",
    "HYPERFINE": "Hyperfine",
    "ESAOTE": "Esaote",
}


def defined_term(value: Any, terms: Mapping[str, str], name: str, warn: Warn) -> str:
    """The term that a header text, or its enumeration, stands for; empty, with a warning, for any other text.

    Parameters
    ----------
    terms : by their texts in upper case, letters and digits only, which alone are compared
    name : of the header's element
    """
    text = str(getattr(value, "value", value) or "").strip()
    if not text:
        return ""
    term = terms.get(re.sub(r"[^A-Z0-9]", "", text.upper()), "")
    if not term:
        warn(f"the header's {name} is none of DICOM's defined terms; it is left out")
    return term


def vendor(text: str | None) -> str | None:
    """The maker of scanners that a text begins with, or None."""
    return VENDORS.get("".join(re.findall(r"[A-Z]+", (text or "").upper())[:1]))
