"""One package a task: what a project of that kind trains, calibrates, evaluates and predicts."""
