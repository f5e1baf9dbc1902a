"""TODO measure/tasks."""
