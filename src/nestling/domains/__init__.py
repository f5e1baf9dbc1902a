"""One folder for each field: its plans, data, models and metrics, composed from the other rooms."""
