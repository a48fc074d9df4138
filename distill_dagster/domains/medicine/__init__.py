"""Medicine: assertion status, laboratory flags and doses from fictional monographs."""
