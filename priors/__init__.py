"""Arrays and models: Fourier transforms, low rank, sparsity, generative priors, posterior sampling.

The names in `__all__` are public: they keep their names, arguments and meaning. All other modules are internal, and may
change at any time.
"""

from typing import TYPE_CHECKING

from priors.environment import ensure_numba_cache, set_thread_environment
from priors.exports import export

set_thread_environment()
ensure_numba_cache()

if TYPE_CHECKING:
    from priors.api import UnlikeTrainingWarning as UnlikeTrainingWarning
    from priors.api import compress_coils as compress_coils
    from priors.api import espirit_maps as espirit_maps
    from priors.api import load_prior as load_prior
    from priors.api import posterior_samples as posterior_samples
    from priors.api import reconstruct as reconstruct
    from priors.prior import DensityPrior as DensityPrior
    from priors.prior import EnergyPrior as EnergyPrior
    from priors.prior import LatentPrior as LatentPrior
    from priors.prior import Prior as Prior
    from priors.prior import SigmaLevels as SigmaLevels
    from priors.prior import expand_sigma as expand_sigma
    from priors.settings import ReconstructionSettings as ReconstructionSettings
    from priors.signal.fourier import fft2c as fft2c
    from priors.signal.fourier import ifft2c as ifft2c
    from priors.signal.fourier import radial_frequency as radial_frequency

_API = (
    "load_prior",
    "espirit_maps",
    "compress_coils",
    "reconstruct",
    "posterior_samples",
    "UnlikeTrainingWarning",
)
_PRIORS = ("Prior", "EnergyPrior", "DensityPrior", "LatentPrior", "SigmaLevels", "expand_sigma")

__all__ = export(
    __name__,
    {
        **dict.fromkeys(_API, "priors.api"),
        **dict.fromkeys(_PRIORS, "priors.prior"),
        "ReconstructionSettings": "priors.settings",
        **dict.fromkeys(("fft2c", "ifft2c", "radial_frequency"), "priors.signal.fourier"),
    },
)
