"""Chats: their records, their rendering by a template, and the tokens that the loss counts."""
