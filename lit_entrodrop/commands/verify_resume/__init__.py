"""Check that a killed and resumed run of a config ends as an uninterrupted one."""
