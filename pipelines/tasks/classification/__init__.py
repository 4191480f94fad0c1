"""Classification: which of the project's classes an image shows, and with what certainty."""
