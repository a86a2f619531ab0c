"""Scores of a model on a task of the user: prompts with the answers that count as right."""
