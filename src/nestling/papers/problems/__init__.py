"""What the tours measure on: public data sets, and texts and pictures that every machine holds."""
