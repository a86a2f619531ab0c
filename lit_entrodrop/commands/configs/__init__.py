"""`lit-entrodrop configs`: the bundled configs."""
