"""Problems of the tours: public data sets, and texts and pictures that every machine has."""
