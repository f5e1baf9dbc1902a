"""What all papers share: claims with their figures, the report of a run, and notes that let it resume."""
