"""Checksums inside the JSON files of a run, which reveal any damage to them.

The last key of the file, ``checksum``, is the sha256 of everything before it, byte for byte. Files
written before there were checksums have none.
"""

import hashlib

KEY = "checksum"
_BEFORE, _AFTER = f',\n "{KEY}": "'.encode(), b'"\n}\n'
_DIGITS = 64
_LENGTH = len(_BEFORE) + _DIGITS + len(_AFTER)


class ChecksumError(ValueError):
    """The file does not match its checksum; the message is one line without the file's name."""


def add(text: str) -> str:
    """Add the checksum to a JSON object with an indent of 1 that ends with a new line."""
    body = text.removesuffix("\n}\n")
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"{body}{_BEFORE.decode()}{digest}{_AFTER.decode()}"


def verify(content: bytes) -> bool:
    """Verify the checksum of a file.

    Returns:
        False if the file does not end with a checksum. If it has the key elsewhere, it is damaged.

    Raises:
        ChecksumError: the content does not match.
    """
    body, end = content[:-_LENGTH], content[-_LENGTH:]
    if not (end.startswith(_BEFORE) and end.endswith(_AFTER)):
        return False
    digest = hashlib.sha256(body).hexdigest().encode()
    if end[len(_BEFORE) : -len(_AFTER)] != digest:
        raise ChecksumError(MISMATCH)
    return True


MISMATCH = "its content does not match its checksum: damaged, or changed by hand"
