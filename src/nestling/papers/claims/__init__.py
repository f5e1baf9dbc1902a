"""What all tours share: claims and their report, studies of trained models, qualities, indexes."""
