"""What Inspectline raises: one line that says what was wrong, where, and what to do."""


class InspectlineError(Exception):
    """Base of every error that Inspectline raises on purpose; trying again without a change does not help.

    A subclass with `passing = True` is about something that may heal by itself, so that it is worth another try.
    """

    passing = False


class SettingsError(InspectlineError):
    """A project file or an environment variable says something that cannot be used."""


class BadImage(InspectlineError):
    """An image is refused; the message is the reason, as the sender should read it."""


class NotEnoughImages(InspectlineError):
    """A dataset is too small for what was asked of it."""


class BadDataset(InspectlineError):
    """A dataset version or its pack refers to something that is not there or not what it was."""


class BadPackage(InspectlineError):
    """A model package is incomplete, altered, or not made for this version of Inspectline."""


class ExportMismatch(InspectlineError):
    """The exported graph does not compute what the trained network computes."""


class TrainingFailed(InspectlineError):
    """Training cannot go on: the loss diverged, or the settings do not fit the data."""


class StorageError(InspectlineError):
    """S3 did not do what was asked."""

    passing = True


class NotFound(StorageError):
    """The object or bucket is not there."""

    passing = False


class CatalogueError(InspectlineError):
    """The catalogue's database did not do what was asked."""

    passing = True


class RegistryError(InspectlineError):
    """The model registry could not be reached, or gave an answer that is not understood."""

    passing = True


class RegistryAway(RegistryError):
    """The model registry does not answer, or not in time."""


class NoSuchVersion(RegistryError):
    """The registry has no such version of the project's model."""

    passing = False


class BadAccount(InspectlineError):
    """An account's name, password or role is none that can be used."""


class AccountRefused(InspectlineError):
    """An account cannot be made or changed so: the name is taken, or no administrator would be left."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without the quotes of a KeyError."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]
