"""A web application: tells the tide, and who built it."""

import os
from wsgiref.simple_server import make_server

from tidetable import tide


def application(environ, respond):
    """One page."""
    respond("200 OK", [("Content-Type", "text/plain")])
    return [f"{tide('noon')}, built by {os.environ['BUILDER']}, as {os.getuid()}\n".encode()]


if __name__ == "__main__":
    make_server("0.0.0.0", 8000, application).serve_forever()
