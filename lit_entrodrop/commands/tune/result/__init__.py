"""Results of a search: final runs, verdict, recipe and page."""
