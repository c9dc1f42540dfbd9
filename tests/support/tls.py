"""Certificates for a daemon and its clients."""

from __future__ import annotations

import ssl
import subprocess

from tests.support.programs import need


def certificate(root, name: str, *, signed_by: str = "") -> None:
    """A key and a certificate for localhost in ``root``, signed by ``signed_by`` or (an authority) by itself."""
    request = [
        need("openssl"),
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        f"{root}/{name}.key",
        "-subj",
        f"/CN={name}",
    ]
    if not signed_by:
        own = [*request, "-x509", "-days", "2", "-out", f"{root}/{name}.pem"]
        subprocess.run([*own, "-addext", "basicConstraints=critical,CA:TRUE"], check=True, capture_output=True)
        return
    subprocess.run([*request, "-out", f"{root}/{name}.csr"], check=True, capture_output=True)
    (root / "extensions").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
    )
    subprocess.run(
        [
            need("openssl"),
            "x509",
            "-req",
            "-in",
            f"{root}/{name}.csr",
            "-CA",
            f"{root}/{signed_by}.pem",
            "-CAkey",
            f"{root}/{signed_by}.key",
            "-CAcreateserial",
            "-out",
            f"{root}/{name}.pem",
            "-days",
            "2",
            "-extfile",
            f"{root}/extensions",
        ],
        check=True,
        capture_output=True,
    )


def trusting(authority: str) -> ssl.SSLContext:
    """A client's context that takes an authority as most programs do: RFC 5280 wants more of one."""
    context = ssl.create_default_context(cafile=authority)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
