"""Every error that a user can meet, and whether trying again helps.

    StockpotError
     +-- TransientError (75)   the world was not ready: network, pre-emption, a full queue; try again later
     +-- PermanentError (2)    the user must change something
          +-- RecipeError      recipe, override or profile
          +-- DataError        a file or a row of the user's data
          +-- SetupError       the machine: a server that does not answer, a missing program, a full disk

The class attribute `code` is the exit code of a step and of the command line. Anything else that is raised is a bug (1).
"""

import errno
import sqlite3
from pathlib import Path


class StockpotError(Exception):
    """Base of all. The message is one sentence: what happened, where, what was expected, what to do."""

    code = 1


class TransientError(StockpotError):
    """Trying again later may help."""

    code = 75


class PermanentError(StockpotError):
    """Trying again cannot help: the user must change something."""

    code = 2


class RecipeError(PermanentError):
    """A recipe, an override or a runtime profile is wrong."""


class DataError(PermanentError):
    """A file of the user's data is wrong as a whole (single bad rows go to quarantine instead)."""


class SetupError(PermanentError):
    """This machine or a service that it needs is not as it must be."""


def explain(error: BaseException) -> StockpotError | None:
    """The user's sentence for an error of the operating system (full disk, missing rights); None for a bug."""
    if isinstance(error, StockpotError):
        return error
    full = isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error)
    if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        where = getattr(error, "filename", None) or Path.cwd()
        return SetupError(f"{where}: the disk is full: free some space and run the same command again; finished steps are kept.")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return SetupError(f"{error.filename}: {error.strerror}: give this user the right to use it.")
    return None
