"""The parameters with flat names that there are, see `pipelines/flat_parameters.py`."""

from __future__ import annotations

from gadgets.outputs import asked_names
from gadgets.solvers.methods import all_methods
from pipelines.flat_parameters import FlatParameter
from priors.registry import method_names

_METHODS = {
    "auto": "as the chain says",
    "zero_filled": "plain Fourier transform",
    "grappa": "GRAPPA",
    "cg_sense": "CG-SENSE",
    "l1_wavelet": "compressed sensing (wavelets)",
    "lindberg": "low rank (Lindberg)",
    "sake": "low rank, no calibration (SAKE)",
    "wkgm": "generative prior (WKGM)",
    "svd_wkgm": "generative prior, low rank (svd-WKGM)",
    "hkgm": "generative prior, one scan (HKGM)",
}

_SERIES = {
    "magnitude": "magnitude",
    "phase": "phase",
    "magnitude,phase": "magnitude and phase",
    "real,imaginary": "real and imaginary",
    "magnitude,phase,real,imaginary": "magnitude, phase, real, imaginary",
    "complex": "complex",
    "magnitude,snr": "magnitude and SNR map",
    "magnitude,snr,gfactor": "magnitude, SNR and g-factor map",
}

_PARTIAL_FOURIER = {
    "off": "not filled in",
    "auto": "as it suits the method",
    "pocs": "POCS",
    "homodyne": "homodyne",
}

TABLE: tuple[FlatParameter, ...] = (
    FlatParameter(
        "method",
        "Method",
        "How images are made of the raw data. CG-SENSE and GRAPPA hold what was measured and nothing else; generative "
        "priors have learnt from other scans.",
        "choice",
        ("generative_recon.method",),
        "auto",
        values={"auto": (_METHODS["auto"], ""), **{name: (_METHODS.get(name, name), name) for name in all_methods()}},
        listed=tuple(_METHODS),
    ),
    FlatParameter(
        "quality",
        "Quality",
        "Generative priors only: fast takes half the time, best twice the time; the difference seldom shows.",
        "choice",
        ("generative_recon.quality",),
        "standard",
        values={"fast": ("fast", "fast"), "standard": ("as the chain says", ""), "best": ("best", "best")},
        needs={"method": method_names()},
    ),
    FlatParameter(
        "denoise",
        "Denoising",
        "Strength of denoising. 1: as the chain says; more: smoother, small detail may go; less: sharper, noisier.",
        "double",
        ("generative_recon.denoising",),
        1.0,
        minimum=0.1,
        maximum=2.0,
    ),
    FlatParameter(
        "samples",
        "Samples",
        "Generative priors only: images that are drawn; with 2 or more, their mean and a series of their standard "
        "deviation are sent. Time grows with them. 0: as the chain says.",
        "int",
        ("generative_recon.samples",),
        0,
        maximum=64,
    ),
    FlatParameter(
        "timelimit",
        "Time limit",
        "Generative priors only: seconds of computing for the scan; a faster method makes the images that are not done "
        "by then. 0: the server's.",
        "int",
        ("generative_recon.time_budget_s",),
        0,
        maximum=3600,
        unit="s",
    ),
    FlatParameter(
        "series",
        "Series",
        "Which images are sent; each kind is a series of its own.",
        "choice",
        ("generative_recon.output",),
        "auto",
        values={"auto": ("as the chain says", ""), **{name: (words, name) for name, words in _SERIES.items()}},
        several=tuple(asked_names()),
    ),
    FlatParameter(
        "averages",
        "Averages",
        "Whether averages of the scan become one image, or one each.",
        "choice",
        ("generative_recon.average",),
        "auto",
        values={
            "auto": ("as the chain says", ""),
            "combined": ("one image", "true"),
            "separate": ("an image each", "false"),
        },
    ),
    FlatParameter(
        "partialfourier",
        "Partial Fourier",
        "How the side of k-space that was not measured is filled in, where the measured side tells it.",
        "choice",
        ("generative_recon.partial_fourier",),
        "chain",
        values={"chain": ("as the chain says", ""), **{name: (text, name) for name, text in _PARTIAL_FOURIER.items()}},
    ),
    FlatParameter(
        "shading",
        "Shading correction",
        "Whether the brightness near surface coils is evened out in magnitude images. Do not measure intensities on "
        "corrected images.",
        "choice",
        ("generative_recon.shading",),
        "chain",
        values={"chain": ("as the chain says", ""), "off": ("off", "off"), "fit": ("on", "fit")},
    ),
)
