"""Model folders and the arithmetic on them: check, digest, load, save; a fast path for Llama-shaped models."""
