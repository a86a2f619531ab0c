"""``python -m lit_entrodrop``."""

from lit_entrodrop.cli.main import main

if __name__ == "__main__":
    main()
