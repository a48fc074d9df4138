"""Finance: routing of bank messages, fields of a payment instruction, covenant tests on small statements."""
