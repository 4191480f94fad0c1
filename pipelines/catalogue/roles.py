"""The roles of accounts, which determine the permitted API calls."""

USER, ADMINISTRATOR = "user", "administrator"
ROLES = (USER, ADMINISTRATOR)
