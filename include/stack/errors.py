"""Errors of the local stack."""

from pipelines.errors import InspectlineError


class StackError(InspectlineError):
    """The local stack cannot do what was asked."""
