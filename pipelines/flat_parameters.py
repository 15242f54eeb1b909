"""Parameters with flat names, for clients that can send no dot: Siemens Open Recon and FIRE, `genrecon send`.

`flat_parameter_table.py` has those there are. A default is neutral: it leaves a parameter as the chain has
it, because a scanner sends all its parameters with every scan, those too that nobody touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gadgets.stream import ReconError

# Keys of FIRE's JSON that are no parameters of a gadget: the chain's name, late images, and what the example modules of
# Siemens' server for FIRE read. Of raw data there is no original image to send.
ANSWER_WITHIN = ("answer_within", "answerwithin")
LATE_IMAGES = ("late_images", "lateimages")
_OF_EXAMPLES = ("options", "comments", "sendOriginal", "sendoriginal")
NOT_OF_GADGETS = ("config", "customconfig", *ANSWER_WITHIN, *LATE_IMAGES, *_OF_EXAMPLES)
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


def read_flat(
    sent: Mapping[str, Any], table: Iterable[FlatParameter]
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
