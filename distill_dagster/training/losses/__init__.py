"""Losses on the distribution over the next token, with gradients in closed form."""
