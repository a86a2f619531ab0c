"""Search for a recipe: which settings to try, how good they are, and whether they beat plain."""
