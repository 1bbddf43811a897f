"""What can go wrong, and with which exit code the program ends."""

from __future__ import annotations


class BackupError(Exception):
    """Something failed; nothing that was good before is less good now."""

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return self.what + (f": {self.why}" if self.why else "") + (f" → {self.fix}" if self.fix else "")


class Refused(BackupError):
    """Nothing was begun, since it could not have ended well."""

    exit_code = 3


class Busy(BackupError):
    """Another run is at work."""

    exit_code = 4


class NeedsPerson(BackupError):
    """Something is left half-way and a person has to decide; `why` says how things stand."""

    exit_code = 5


class Partial(BackupError):
    """Some sources were saved and some were not."""

    exit_code = 6


class Untried(BackupError):
    """A backup could not be put to the proof, for want of a tool or a key; that says nothing about it."""


class Stopped(BaseException):
    """We were told to end, or whoever asked for this is gone; everything is being undone."""
