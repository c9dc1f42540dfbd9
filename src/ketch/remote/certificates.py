"""TLS of registries: ``certs.d/HOST[:PORT]/`` with authorities (*.crt) and our certificates (*.cert with *.key)."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence


def context(folders: Sequence[str], host: str, *, verify: bool = True) -> ssl.SSLContext:
    """The TLS context for a host (FailedPrecondition: unusable files)."""
    made = ssl.create_default_context()
    # Python 3.13 and later ask for what RFC 5280 wants of authorities; those that people have made themselves, as
    # Docker's documentation shows it, often lack it, and no other client of registries minds.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for folder in folders:
        directory = os.path.join(folder, host)
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            _add(made, directory, name, names)
    return made


def _add(made: ssl.SSLContext, directory: str, name: str, names: list[str]) -> None:
    path = os.path.join(directory, name)
    stem, extension = os.path.splitext(name)
    try:
        if extension == ".crt":
            made.load_verify_locations(cafile=path)
        elif extension == ".cert":
            key = f"{stem}.key"
            if key not in names:
                raise FailedPrecondition(
                    f"missing key {key} for client certificate {name}. CA certificates must use the extension .crt"
                )
            made.load_cert_chain(path, os.path.join(directory, key))
        elif extension == ".key" and f"{stem}.cert" not in names:
            raise FailedPrecondition(f"missing client certificate {stem}.cert for key {name}")
    except (ssl.SSLError, OSError) as e:
        raise FailedPrecondition(f"read certificate `{path}`: {e}") from e
