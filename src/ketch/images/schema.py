"""The image tables.

images (id, record)           id = digest of the configuration; record = Image as JSON, without names
image_names (name, id)        normalized reference → image; many names, one image
"""

from __future__ import annotations

from ketch.storage.db import Schema

SCHEMA = Schema(
    "images",
    (
        "CREATE TABLE images (id TEXT PRIMARY KEY, record BLOB NOT NULL);"
        "CREATE TABLE image_names (name TEXT PRIMARY KEY, id TEXT NOT NULL REFERENCES images (id))",
    ),
)
