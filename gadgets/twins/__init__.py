"""Python twins of Gadgetron's C++ gadgets, under Gadgetron's class and property names, one a file.

With them an XML chain written for Gadgetron 4.7 runs in process. Each does what the C++ gadget of that name does; where
it differs, its docstring says so.
"""

from gadgets.stream import Gadget
from gadgets.twins.accumulate_trigger import AcquisitionAccumulateTriggerGadget
from gadgets.twins.asymmetric_echo import AsymmetricEchoAdjustROGadget
from gadgets.twins.bucket_to_buffer import BucketToBufferGadget
from gadgets.twins.complex_to_float import ComplexToFloatGadget
from gadgets.twins.field_of_view import GenericReconFieldOfViewAdjustmentGadget
from gadgets.twins.float_to_ushort import FloatToUShortGadget
from gadgets.twins.image_array_split import ImageArraySplitGadget
from gadgets.twins.image_finish import ImageFinishGadget
from gadgets.twins.noise_adjust import NoiseAdjustGadget
from gadgets.twins.remove_oversampling import RemoveROOversamplingGadget

TWINS: dict[str, type[Gadget]] = {
    twin.__name__: twin
    for twin in (
        NoiseAdjustGadget,
        AsymmetricEchoAdjustROGadget,
        RemoveROOversamplingGadget,
        AcquisitionAccumulateTriggerGadget,
        BucketToBufferGadget,
        GenericReconFieldOfViewAdjustmentGadget,
        ImageArraySplitGadget,
        ComplexToFloatGadget,
        FloatToUShortGadget,
        ImageFinishGadget,
    )
}
