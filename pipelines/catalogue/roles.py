"""The roles of accounts: who may make which calls of serving."""

USER, ADMINISTRATOR = "user", "administrator"
ROLES = (USER, ADMINISTRATOR)
