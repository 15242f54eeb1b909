# %% [markdown]
# # Raw data by hand
#
# A scan is a header and a list of readouts. This example writes both with the package `ismrmrd`, reconstructs the
# file, and looks at the image. Once you have written one file by hand, you know what a converter has to get
# right.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import ismrmrd
import matplotlib.pyplot as plt
import numpy as np
from ismrmrd import xsd

from pipelines import BRAIN_SCAN, brain_scan, read_images, replay, scan_arrays

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## What was measured
#
# K-space of one slice in four coils, all 96 lines of it. Here it comes from a simulation; in your case it comes
# from your own sequence. Its centre (zero frequency) is at index n // 2 along both axes.

# %%
settings = replace(
    BRAIN_SCAN,
    matrix=(96, 96, 1),
    slices=1,
    coils=4,
    sampling="full",
    acceleration=1,
    noise_level=0.005,
    noise_scan=False,
)
kspace = scan_arrays(brain_scan(settings))[0][0]
coils, lines, samples = kspace.shape
print(f"{coils} coils, {lines} lines of {samples} samples, {kspace.dtype}")

# %% [markdown]
# ## The header
#
# Three things decide whether the image is right: the *matrix* (how many samples), the *field of view* (how many
# millimetres), and the *limits*: which line is the centre of k-space. Encoded and reconstructed space differ
# where the readout is oversampled; here it is not.

# %%
space = xsd.encodingSpaceType(
    matrixSize=xsd.matrixSizeType(x=samples, y=lines, z=1), fieldOfView_mm=xsd.fieldOfViewMm(x=224.0, y=224.0, z=3.0)
)
header = xsd.ismrmrdHeader(
    experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
    acquisitionSystemInformation=xsd.acquisitionSystemInformationType(receiverChannels=coils),
    encoding=[
        xsd.encodingType(
            encodedSpace=space,
            reconSpace=space,
            encodingLimits=xsd.encodingLimitsType(
                kspace_encoding_step_1=xsd.limitType(minimum=0, maximum=lines - 1, center=lines // 2)
            ),
            trajectory=xsd.trajectoryType.CARTESIAN,
            parallelImaging=xsd.parallelImagingType(
                accelerationFactor=xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1),
                calibrationMode=xsd.calibrationModeType.EMBEDDED,
            ),
        )
    ],
)

# %% [markdown]
# ## The readouts
#
# Each line is an `Acquisition`: samples of all coils, the number of the line, and flags. We leave out every other
# line but for 20 at the centre. Those are marked as calibration, so that coil maps can be made of them. The last
# line says that the slice is complete.

# %%
centre = range(lines // 2 - 10, lines // 2 + 10)
measured = [line for line in range(lines) if line % 2 == 0 or line in centre]
raw = folder / "by_hand.h5"
with ismrmrd.Dataset(str(raw), "dataset", create_if_needed=True) as dataset:
    dataset.write_xml_header(header.toXML())
    for line in measured:
        readout = ismrmrd.Acquisition.from_array(kspace[:, line])
        readout.idx.kspace_encode_step_1 = line
        readout.center_sample = samples // 2
        readout.sample_time_us = 5.0
        readout.read_dir[:], readout.phase_dir[:], readout.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
        if line in centre:
            both = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING
            readout.set_flag(both if line % 2 == 0 else ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        if line == measured[-1]:
            readout.set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
        dataset.append_acquisition(readout)
print(f"{len(measured)} of {lines} lines written")

# %% [markdown]
# ## The image
#
# `replay` runs a chain over the file. It leaves DICOM files, a picture, and the images with their metadata. What
# it found odd in the data is in `warnings`: read them before you look at the image. Here one is right: we wrote
# no noise scan, which a scanner would have measured before.

# %%
result = replay(raw, "cg_sense", folder / "out")
print(f"{result.images} image, {result.dicom_files} DICOM file, warnings: {result.warnings or 'none'}")
image = next(read_images(folder / "out", series=1))

figure, axes = plt.subplots(1, 2, figsize=(8, 4))
axes[0].imshow(np.log(np.abs(kspace[0]) + 1e-3), cmap="gray")
axes[0].set_title("one coil's k-space (logarithm)")
axes[1].imshow(image.data[0, 0], cmap="gray")
axes[1].set_title(f"cg_sense of {len(measured)} of {lines} lines")
for one in axes:
    one.set_axis_off()
plt.show()
