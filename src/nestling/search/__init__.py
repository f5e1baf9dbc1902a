"""Search among vectors at any prefix size: exact, and by a funnel of growing sizes."""
