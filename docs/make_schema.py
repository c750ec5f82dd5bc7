"""Writes docs/manifest.schema.json, the JSON Schema of manifest.json, from the code: ``python docs/make_schema.py``."""

from pathlib import Path

import msgspec

from edgeseq.manifest import Manifest

TARGET = Path(__file__).with_name("manifest.schema.json")


def schema() -> bytes:
    """The schema, as it is in the file."""
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Manifest)}
    return msgspec.json.format(msgspec.json.encode(found, order="sorted"), indent=1) + b"\n"


if __name__ == "__main__":
    TARGET.write_bytes(schema())
