"""Errors that a person can act on: what was wrong, what was found, what to do next; and the check of numbers."""


class MitodaError(Exception):
    """Base of what the command line turns into one line on standard error and exit status 1."""


class InputError(MitodaError, ValueError):
    """An argument, a volume or a setting is not what it must be."""


class FileError(MitodaError, OSError):
    """A file or folder is missing, broken, of the wrong kind, in the way or cannot be written."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the system or a device had no more memory to give; torch's errors are recognised without importing torch.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA out of memory")), is_out_of_memory(OSError("CUDA out of memory"))
    (True, False)
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (
            type(error).__name__ == "OutOfMemoryError"
            or "out of memory" in text
            or "can't allocate memory" in text
            or "not enough memory" in text
        )
    )


def check_numbers(settings: object, **ranges: tuple[float, float]) -> None:
    """Refuse fields that are not finite or out of their range; None is no number.

    Raises
    ------
    InputError
        Names the field, its range and the value.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:  # false for NaN
            raise InputError(f"{name} must be from {low:,} to {high:,}; got {value}")
