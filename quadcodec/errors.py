"""The exception family: every error a user can cause is one of these, and says what to do about it."""


class QuadcodecError(Exception):
    """Report a problem as one line: where, what was found, what was expected, what to do."""


class FormatError(QuadcodecError):
    """Report bytes that are not a record or store of this format."""


class CorruptRecordError(FormatError):
    """Report a record whose bytes contradict its checksums, its header or the format."""


class UnsupportedVersionError(FormatError):
    """Report a record or store written by a newer format version."""


class ManifestError(QuadcodecError):
    """Report a data set description, or a data set that does not fit its description."""


class MaskError(QuadcodecError):
    """Report a mask that cannot be read as an array of ids, or ids that do not fit."""


class StoreError(QuadcodecError):
    """Report a store that is missing, incomplete, in the way, or not writable."""
