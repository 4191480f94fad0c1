"""Whether the champion of a classifier keeps the project's minimum of accuracy, and the mail when that changes."""
