"""One field each: data readers, models and metrics, composed from the other rooms."""
