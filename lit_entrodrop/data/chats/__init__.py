"""Chats: what a record says, how a template renders it, and which tokens the loss counts."""
