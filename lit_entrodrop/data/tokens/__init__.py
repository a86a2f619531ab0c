"""Tokens of text: encoding, special tokens and long texts."""
