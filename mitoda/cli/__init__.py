"""The command line: the only package that knows the terminal. The core yields, this draws.

One `except` turns what a person can act on into one line on standard error and exit status 1; usage errors exit with 2.
"""

import sys

from mitoda.cli.app import app
from mitoda.errors import MitodaError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 usage."""
    try:
        app()
    except MitodaError as error:
        sys.exit(f"mitoda: {error}")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        sys.exit(f"mitoda: {error.strerror or error}: {error.filename}" if error.filename else f"mitoda: {error}")
