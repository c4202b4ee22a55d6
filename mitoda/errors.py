"""Errors that a person can act on: what was wrong, what was found, what to do next."""


class MitodaError(Exception):
    """Base of what the command line turns into one line on standard error and exit status 1."""


class InputError(MitodaError, ValueError):
    """An argument, a volume or a setting is not what it must be."""


class FileError(MitodaError, OSError):
    """A file or folder is missing, broken, of the wrong kind, in the way or cannot be written."""
