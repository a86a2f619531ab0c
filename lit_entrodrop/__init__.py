"""Fine-tune causal language models on little text for many epochs, under token regularizers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lit-entrodrop")
except PackageNotFoundError:
    # Run from a checkout that is not installed.
    __version__ = "0.0.0"
