"""What the tests of the store seal."""

KEY = ("finance", "seed_set")


def run_record(number: int = 0, action: str = "a") -> dict:
    """What `seal` needs of a run."""
    return {"id": f"20260101T000000Z-{number:08d}", "action": action * 64, "ended": f"2026-01-01T00:00:{number:02d}Z"}
