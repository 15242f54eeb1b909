"""A list of priors as a text: WEIGHT*PRIOR + WEIGHT*PRIOR + ..., as a property of a chain or of the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from priors.learning.checkpoints import is_shipped

LOW_RANK = "low_rank"  # Hankel low rank of the coils, which is part of the data step
WAVELET = "wavelet"  # `priors.joint.HaarSparsity`


@dataclass(frozen=True)
class PriorTerm:
    """One prior of a list.

    Parameters
    ----------
    name : str
        File of weights, FILE.py:NAME or MODULE:NAME, a method whose weights come with the package, or wavelet.
    weight : float
        Weight relative to the others, above zero.
    """

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class PriorList:
    """Priors with weights, and whether Hankel low rank joins them.

    Parameters
    ----------
    terms : tuple of PriorTerm
        One or more.
    low_rank : bool
        Whether the data step uses the low rank of the coils.
    """

    terms: tuple[PriorTerm, ...]
    low_rank: bool = False


def with_absolute_files(text: str) -> str:
    """A property `prior` whose files are named absolutely, for processes that run in another folder.

    Raises
    ------
    ValueError
        If it is a list, and a wrong one.
    """
    if not is_prior_list(text):
        return text if is_shipped(text) else str(Path(text).expanduser().absolute())
    listed = read_prior_list(text)
    terms = [
        f"{term.weight:g}*{Path(term.name).expanduser().absolute() if is_file_name(term.name) else term.name}"
        for term in listed.terms
    ]
    return " + ".join(terms + [LOW_RANK] * listed.low_rank)


def is_file_name(name: str) -> bool:
    """Whether the name of a prior is that of a file of weights."""
    return name.endswith(".safetensors")


def is_prior_list(text: str) -> bool:
    """Whether a text is a list of priors, and no single one; a file whose name looks like a list is one."""
    return ("+" in text or "*" in text) and not Path(text).expanduser().is_file()


def read_prior_list(text: str) -> PriorList:
    """Read WEIGHT*PRIOR + WEIGHT*PRIOR + low_rank.

    Parameters
    ----------
    text : str
        Terms with plus signs between them. A weight that is left out is 1; low_rank has none.

    Returns
    -------
    PriorList

    Raises
    ------
    ValueError
        If a term is empty, a weight is no number above zero, low_rank has a weight, or nothing but low_rank is left.
    """
    terms: list[PriorTerm] = []
    low_rank = False
    for part in text.split("+"):
        number, star, name = part.rpartition("*")
        name = name.strip()
        if not name or (star and not number.strip()):
            raise ValueError(f"a list of priors has an empty term in '{text}'; give WEIGHT*PRIOR + WEIGHT*PRIOR")
        if name == LOW_RANK:
            if star:
                raise ValueError(
                    f"{LOW_RANK} has no weight: it is part of the data step; leave '{number.strip()}*' out"
                )
            low_rank = True
            continue
        try:
            weight = float(number) if star else 1.0
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise ValueError(f"weight '{number.strip()}' of prior {name} is no number above 0; give WEIGHT*PRIOR")
        terms.append(PriorTerm(name, weight))
    if not terms:
        raise ValueError(f"{LOW_RANK} alone is no prior; add one, as in wkgm + {LOW_RANK}")
    return PriorList(tuple(terms), low_rank)
