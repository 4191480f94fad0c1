"""What the DAG files of Inspectline share: which projects there are, defaults, forms, and the task behind each box."""
