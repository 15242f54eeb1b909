"""Parameters with flat names, for clients that can send no dot: Siemens Open Recon and FIRE, `genrecon send`.

`TABLE` is the one place that defines them. A default is neutral: it leaves a parameter as the chain has it, because a
scanner sends all its parameters with every scan, those too that nobody touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gadgets.outputs import asked_names
from gadgets.solvers.methods import all_methods
from gadgets.stream import ReconError

# Keys of FIRE's JSON that are no parameters of a gadget: the chain's name, late images, and what the example modules of
# Siemens' server for FIRE read. Of raw data there is no original image to send.
ANSWER_WITHIN = ("answer_within", "answerwithin")
LATE_IMAGES = ("late_images", "lateimages")
_OF_EXAMPLES = ("options", "comments", "sendOriginal", "sendoriginal")
NOT_OF_GADGETS = ("config", "customconfig", *ANSWER_WITHIN, *LATE_IMAGES, *_OF_EXAMPLES)
QUALITY_STEPS = {"fast": "12", "thorough": "50"}  # of the few-step rule, whose own number is 25; docs/open_recon.md
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class FlatParameter:
    """A parameter with a flat name.

    Parameters
    ----------
    id : letters and digits, at most 14
    label, information : for the user of a scanner
    kind : "choice", "int", "double", "boolean" or "string", the types of Open Recon
    settings : names of the properties, `gadget.property`
    default : leaves the properties as the chain has them; None: every value is set
    minimum, maximum : smallest and largest number
    unit : of a number, at most three letters
    values : of a choice: name, and text that the properties are set to, by the value that is sent
    listed : values of a choice that a scanner offers; empty: all
    needs : values of other properties of the gadget with which alone it means something
    several : names of which a choice takes several too, separated by commas
    """

    id: str
    label: str
    information: str
    kind: str
    settings: tuple[str, ...]
    default: str | float | bool | None
    minimum: float = 0.0
    maximum: float = 0.0
    unit: str = ""
    values: Mapping[str, tuple[str, str]] | None = None
    listed: tuple[str, ...] = ()
    needs: Mapping[str, tuple[str, ...]] | None = None
    several: tuple[str, ...] = ()

    def text(self, value: Any) -> str | None:
        """What the properties are set to by a value that a client sent; None: they stay as the chain has them.

        Numbers and booleans may come as text, as Open Recon's examples send them.

        Raises ReconError that names the parameter and what it takes.
        """
        if not isinstance(value, str | int | float | bool):
            raise ReconError(f"parameter '{self.id}' is neither a text nor a number; it must be {self.allowed()}")
        try:
            return self._text(value)
        except (ValueError, OverflowError):
            shown = str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}..."
            raise ReconError(f"parameter '{self.id}' is '{shown}'; it must be {self.allowed()}") from None

    def allowed(self) -> str:
        """What it takes, in words."""
        if self.several:
            return f"{self.default}, or some of {', '.join(self.several)}, separated by commas"
        if self.values is not None:
            return f"one of {', '.join(self.values)}"
        if self.kind in ("int", "double"):
            number = "a whole number" if self.kind == "int" else "a number"
            return f"{number} from {self.minimum:g} to {self.maximum:g}"
        return "true or false" if self.kind == "boolean" else "a text"

    def _text(self, value: str | float | bool) -> str | None:
        given = str(value).strip()
        if self.values is not None:
            name = next((name for name in self.values if name.lower() == given.lower()), None)
            if name is None:
                return self._list(given)
            return None if name == self.default else self.values[name][1]
        if self.kind == "boolean":
            if given.lower() not in TRUE + FALSE:
                raise ValueError
            found = given.lower() in TRUE
            return None if found == self.default else str(found).lower()
        if self.kind == "string":
            return None if given == self.default else given
        if isinstance(value, bool):
            raise ValueError
        number = float(given)
        if not self.minimum <= number <= self.maximum or (self.kind == "int" and number != math.floor(number)):
            raise ValueError
        return None if number == self.default else f"{number:.15g}"

    def _list(self, given: str) -> str:
        names = [name.strip().lower() for name in given.split(",")]
        if not self.several or not set(names) <= set(self.several):
            raise ValueError
        return ",".join(dict.fromkeys(names))


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
        "Generative priors only: fast takes half the time, thorough twice the time; the difference seldom shows.",
        "choice",
        ("generative_recon.steps",),
        "standard",
        values={
            "fast": ("fast", QUALITY_STEPS["fast"]),
            "standard": ("standard", ""),
            "thorough": ("thorough", QUALITY_STEPS["thorough"]),
        },
        needs={"method": ("wkgm", "svd_wkgm", "hkgm"), "sampler": ("auto", "few_step")},
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
)


def read_flat(
    sent: Mapping[str, Any], table: Iterable[FlatParameter] = TABLE
) -> tuple[list[tuple[FlatParameter, str]], list[str]]:
    """Parameters with flat names that a client sent.

    Parameters
    ----------
    sent : all that it sent, by name
    table : the parameters there are

    Returns
    -------
    Each with the text that its properties are set to, less those that leave the chain as it is; and the names that
    nothing is known of

    Raises
    ------
    ReconError
        A value is not among those allowed.
    """
    known = {parameter.id: parameter for parameter in table}
    found: list[tuple[FlatParameter, str]] = []
    unknown = []
    for name, value in sent.items():
        if name in known:
            text = known[name].text(value)
            if text is not None:
                found.append((known[name], text))
        elif "." not in name and name not in NOT_OF_GADGETS:
            unknown.append(name)
    return found, unknown
