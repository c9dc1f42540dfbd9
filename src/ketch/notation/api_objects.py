"""JSON objects of the Engine API, as types alone.

``ApiObject`` is a body, an answer or a part of one, in Docker's names.  The API's description says which members it
has: what the daemon sends is held to it by contract tests, and what the command line reads comes from any version of
any daemon, so that a member may be missing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    ApiObject = dict[str, Any]
