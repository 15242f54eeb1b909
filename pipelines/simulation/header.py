"""The ISMRMRD header of a simulated scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from ismrmrd import xsd
from xsdata.models.datatype import XmlDate, XmlTime

from pipelines.simulation.scanners import VENDORS
from pipelines.simulation.settings import SimulationSettings

RELATIVE_RECEIVER_NOISE_BANDWIDTH = 0.79
PROTON_GYROMAGNETIC_RATIO_HZ_PER_T = 42.577478518e6


def scan_header(settings: SimulationSettings) -> Any:
    """Header of a scan, as ismrmrd.xsd.ismrmrdHeader."""
    s = settings
    scanner = VENDORS[s.vendor]
    date = XmlDate.from_date(s.study_date)
    time = XmlTime.from_time(s.study_time)
    lines, lines_e2 = s.calibration_shape
    parameters = []
    if s.calibration == "embedded" and lines:
        parameters.append(xsd.userParameterLongType(name="EmbeddedRefLinesE1", value=lines))
        if s.is_3d:
            parameters.append(xsd.userParameterLongType(name="EmbeddedRefLinesE2", value=lines_e2))
    sampling = xsd.userParameterStringType(name="SamplingPattern", value=s.sampling)
    return xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(
            patientName=s.patient_name,
            patientWeight_kg=70.0,
            patientID=s.patient_id,
            patientBirthdate=XmlDate.from_date(s.patient_birthdate),
            patientGender=s.patient_sex,
        ),
        studyInformation=xsd.studyInformationType(
            studyDate=date,
            studyTime=time,
            studyID="1",
            studyDescription="Simulated study",
            studyInstanceUID=_uid(s, 1),
            bodyPartExamined="BRAIN",
        ),
        measurementInformation=xsd.measurementInformationType(
            measurementID=f"simulated_{s.study_date:%Y%m%d}_{s.seed}",
            seriesDate=date,
            seriesTime=time,
            patientPosition=xsd.patientPositionType.HFS,
            initialSeriesNumber=1,
            protocolName=s.protocol_name,
            sequenceName=s.sequence_type,
            seriesDescription=s.series_description,
            seriesInstanceUIDRoot=_uid(s, 2),
            frameOfReferenceUID=_uid(s, 3),
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor=scanner.vendor,
            systemModel=scanner.model,
            systemFieldStrength_T=scanner.field_strength_t,
            relativeReceiverNoiseBandwidth=RELATIVE_RECEIVER_NOISE_BANDWIDTH,
            receiverChannels=s.coils,
            coilLabel=[
                xsd.coilLabelType(coilNumber=coil, coilName=scanner.coil_name.format(coil + 1))
                for coil in range(s.coils)
            ],
            institutionName=s.institution,
            stationName="SIMULATOR",
        ),
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(PROTON_GYROMAGNETIC_RATIO_HZ_PER_T * scanner.field_strength_t)
        ),
        encoding=[_encoding(s)],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[s.tr_ms],
            TE=[s.te_ms + contrast * s.echo_spacing_ms for contrast in range(s.contrasts)],
            TI=[s.ti_ms],
            flipAngle_deg=[s.flip_angle_deg],
            sequence_type=s.sequence_type,
            echo_spacing=[s.echo_spacing_ms],
        ),
        userParameters=xsd.userParametersType(userParameterLong=parameters, userParameterString=[sampling]),
    )


def encoding_space(settings: SimulationSettings, recon: bool) -> Any:
    """Matrix and field of view of the encoded space (readout oversampling included) or of the recon space."""
    x, y, z = settings.matrix
    x_mm, y_mm, z_mm = settings.field_of_view_mm
    if recon:
        x, y, z = settings.recon_matrix or settings.matrix
        x_mm, y_mm, z_mm = settings.recon_field_of_view_mm or settings.field_of_view_mm
    else:
        x_mm, x = x_mm * settings.readout_samples / x, settings.readout_samples
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=x, y=y, z=z),
        fieldOfView_mm=xsd.fieldOfViewMm(x=float(x_mm), y=float(y_mm), z=float(z_mm)),
    )


def _encoding(settings: SimulationSettings) -> Any:
    s = settings
    _, ny, nz = s.matrix
    _, skipped, skipped_e2 = s.omitted

    def limit(length: int, centre: int = 0) -> Any:
        return xsd.limitType(minimum=0, maximum=length - 1, center=centre)

    modes = xsd.calibrationModeType
    mode = modes.OTHER if s.calibration == "none" else modes(s.calibration)
    acceleration = xsd.accelerationFactorType(
        kspace_encoding_step_1=round(s.acceleration), kspace_encoding_step_2=s.acceleration_e2
    )
    interleaving = xsd.interleavingDimensionType.REPETITION if s.calibration == "interleaved" else None
    return xsd.encodingType(
        encodedSpace=encoding_space(s, recon=False),
        reconSpace=encoding_space(s, recon=True),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_1=limit(ny - skipped, ny // 2 - skipped),
            kspace_encoding_step_2=limit(nz - skipped_e2, nz // 2 - skipped_e2),
            average=limit(s.averages),
            slice=limit(s.slices),
            contrast=limit(s.contrasts),
            phase=limit(1),
            repetition=limit(s.repetitions),
            set=limit(s.sets),
            segment=limit(1),
        ),
        trajectory=xsd.trajectoryType.CARTESIAN,
        parallelImaging=xsd.parallelImagingType(
            accelerationFactor=acceleration, calibrationMode=mode, interleavingDimension=interleaving
        ),
    )


def _uid(settings: SimulationSettings, kind: int) -> str:
    """DICOM unique identifier of a simulated study, series or frame of reference."""
    # 2.25 is the root for identifiers derived from 128-bit numbers (ISO/IEC 9834-8).
    number = int.from_bytes(np.random.default_rng([settings.seed, 7, kind]).bytes(16), "big")
    return f"2.25.{number}"
