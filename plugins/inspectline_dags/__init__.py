"""What the DAG files share: the projects, default arguments, forms, and the task behind each box."""
