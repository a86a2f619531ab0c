"""Commands, parsers, configs and the terminal."""
