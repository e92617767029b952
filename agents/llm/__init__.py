"""Talking to a language model: the endpoint, the prompts, the replies and what they cost."""
