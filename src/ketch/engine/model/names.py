"""Names and ids of containers: generated ones, and the rules for given ones."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Container

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")

_ADJECTIVES = (
    "agile amber ample ardent balmy blithe bonny brisk bronze calm candid cheery chief civil cobalt copper coral "
    "cosy crisp dapper deft earnest easy fabled fleet fluent fond frank fresh genial gilded glad golden handy "
    "hardy hearty humble indigo ivory jolly jovial keen kind lively lucid lunar mellow merry mighty mild nimble "
    "noble olive patient placid plucky polar prime proud quick quiet rapid ready rosy royal rustic sage salty "
    "scarlet serene sharp silver sleek snug solar sound spry stable steady sterling stoic sturdy sunny swift "
    "tidy tranquil trim trusty upbeat valiant vivid warm wise witty zesty"
)
_SURNAMES = (
    "abel agnesi ampere anning avicenna babbage banach barton bell bernoulli bohr boole born bose brahe cantor "
    "carson cauchy cavendish cerf chandra conway copernicus cray curie darwin davy descartes dirac edison erdos "
    "euclid euler faraday fermat fermi feynman fourier franklin galois gauss germain gibbs goedel hadamard "
    "hamilton hamming herschel hertz hilbert hooke hopper hubble huygens hypatia jemison joule kepler kernighan "
    "kirch knuth kovalevskaya lagrange lamarr laplace leibniz liskov lovelace mach markov maxwell mccarthy "
    "meitner mendel minsky mirzakhani napier newton nobel noether ohm pascal pasteur pauli peano planck poincare "
    "postel ptolemy raman ramanujan riemann ritchie rubin rutherford sagan shannon snell stokes tesla thales "
    "thompson torvalds turing villani volta wiles wing wozniak wu yalow"
)
ADJECTIVES = _ADJECTIVES.split()
SURNAMES = _SURNAMES.split()


def new_id() -> str:
    """A fresh 64-digit hexadecimal id whose first twelve digits are not all decimal.

    A short id of decimal digits alone would be mistaken for a number by scripts (and by hostname parsers).
    """
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdecimal():
            return candidate


def generate(taken: Container[str]) -> str:
    """An ``adjective_surname`` that is not in ``taken``; a number is appended when luck runs out."""
    for attempt in range(100):
        name = f"{secrets.choice(ADJECTIVES)}_{secrets.choice(SURNAMES)}"
        if attempt > 5:
            name += str(secrets.randbelow(10 * attempt))
        if name not in taken:
            return name
    return f"{secrets.choice(ADJECTIVES)}_{secrets.token_hex(6)}"


def check(name: str) -> str:
    """``name`` without its leading slash; raises InvalidArgument when it is not a container name."""
    if not _NAME.match(name):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")
