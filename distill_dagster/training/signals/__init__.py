"""What a teacher says about tokens, beyond text: captured once and joined by record, or asked while training."""
