"""Versions of the Engine API that this engine speaks."""

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
