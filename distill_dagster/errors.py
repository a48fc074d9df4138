"""Errors that say where, what, why and what to do next."""


class DistillError(Exception):
    """A fault a person can act on.

    Args:
        place: File and line, asset key, or record the fault belongs to.
        reason: What is wrong there, with the offending value.
        next_step: What the reader can do about it.

    Attributes:
        exit_code: What the command line ends with.
    """

    exit_code = 1

    def __init__(self, place: str, reason: str, next_step: str = "") -> None:
        self.place = place
        self.reason = reason
        self.next_step = next_step
        super().__init__(f"{place}: {reason}" + (f" {next_step}" if next_step else ""))


class ConfigError(DistillError):
    """A configuration file says something that cannot be."""


class SourceError(DistillError):
    """A seed or evaluation source cannot be read as it is described."""


class StoreError(DistillError):
    """The artifact store cannot hold or find what was asked of it."""


class LawError(DistillError):
    """A conservation law does not hold, so the version is not sealed."""


class ModelError(DistillError):
    """A model folder is missing, incomplete, or not safe to load."""


class TrainingError(DistillError):
    """Training cannot go on: a loss that is not finite, an empty batch, a record too long."""


class GateError(DistillError):
    """A blocking check has not passed for exactly the versions that would be consumed."""


class PluginError(DistillError):
    """A domain plugin cannot be imported, or claims a name that is taken."""


class TeacherError(DistillError):
    """A teacher cannot go on answering; what it has answered is kept, and the same run goes on from there."""


class LeaseError(DistillError):
    """Another process holds the work; the error names it."""


class BudgetError(DistillError):
    """A budget has no room for the next question; what is answered is kept, and a higher one goes on from there."""
