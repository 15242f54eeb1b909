"""Body parts as codes (PS3.16 annex L)."""

from __future__ import annotations

from pydicom.dataset import Dataset

UNKNOWN_REGION = ("123037004", "Body structure")  # what any region is: the code is required

REGIONS = {  # by BodyPartExamined: SNOMED CT code and meaning
    "ABDOMEN": ("818981001", "Abdomen"),
    "ABDOMENPELVIS": ("818982008", "Abdomen and Pelvis"),
    "AORTA": ("15825003", "Aorta"),
    "BLADDER": ("89837001", "Bladder"),
    "BRAIN": ("12738006", "Brain"),
    "BREAST": ("76752008", "Breast"),
    "CEREBELLUM": ("113305005", "Cerebellum"),
    "CHEST": ("816094009", "Chest"),
    "CSPINE": ("122494005", "Cervical spine"),
    "CTSPINE": ("1217257000", "Cervico-thoracic spine"),
    "EXTREMITY": ("66019005", "Extremity"),
    "EYE": ("81745001", "Eye"),
    "FACE": ("89545001", "Face"),
    "FEMUR": ("71341001", "Femur"),
    "FINGER": ("7569003", "Finger"),
    "FOOT": ("56459004", "Foot"),
    "FOREARM": ("14975008", "Forearm"),
    "HAND": ("85562004", "Hand"),
    "HEAD": ("69536005", "Head"),
    "HEADNECK": ("774007", "Head and Neck"),
    "HEART": ("80891009", "Heart"),
    "HIP": ("29836001", "Hip"),
    "HUMERUS": ("85050009", "Humerus"),
    "KIDNEY": ("64033007", "Kidney"),
    "KNEE": ("72696002", "Knee"),
    "LIVER": ("10200004", "Liver"),
    "LSPINE": ("122496007", "Lumbar spine"),
    "LSSPINE": ("243898001", "Lumbo-Sacral Spine"),
    "NECK": ("45048000", "Neck"),
    "ORBIT": ("363654007", "Orbit"),
    "PANCREAS": ("15776009", "Pancreas"),
    "PELVIS": ("816092008", "Pelvis"),
    "PROSTATE": ("41216001", "Prostate"),
    "SHOULDER": ("16982005", "Shoulder"),
    "SPINE": ("421060004", "Spine"),
    "THIGH": ("68367000", "Thigh"),
    "TLSPINE": ("1217256009", "Thoraco-lumbar spine"),
    "TSPINE": ("122495006", "Thoracic spine"),
    "UTERUS": ("35039007", "Uterus"),
    "WHOLEBODY": ("38266002", "Entire body"),
}


def coded(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    """The item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def region(body_part: str) -> Dataset:
    """The code of a BodyPartExamined; of none or one without a code here, that of any region."""
    return coded(*REGIONS.get(body_part, UNKNOWN_REGION))
