"""Named corpora, one module per family, read from the files of installed packages."""
