"""mitoda: mitochondria in electron-microscopy stacks that nobody has labelled."""

__version__ = "0.1.0"
