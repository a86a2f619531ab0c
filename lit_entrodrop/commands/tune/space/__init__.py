"""What a search may try: ranges of settings, and methods with their strengths."""
