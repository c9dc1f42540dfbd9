"""The image tables.

images (id, record)           id = digest of the configuration; record = Image as JSON, without names
image_names (name, id, target)  normalized reference (a tag or repository@digest) → image; many names, one image;
                              target = digest of the manifest or index that it stands for, empty: the image's own
"""

from __future__ import annotations

from ketch.images.model import Image
from ketch.storage.database import removals
from ketch.storage.database.db import Schema
from ketch.storage.database.records import Form

FORM = Form(Image)

SCHEMA = Schema(
    "images",
    (
        "CREATE TABLE images (id TEXT PRIMARY KEY, record BLOB NOT NULL);"
        "CREATE TABLE image_names (name TEXT PRIMARY KEY, id TEXT NOT NULL REFERENCES images (id))",
        "ALTER TABLE image_names ADD COLUMN target TEXT NOT NULL DEFAULT ''",
    ),
    {"images": FORM.version},
)

# Of the database of a store of images.
SCHEMAS = (SCHEMA, removals.SCHEMA)
