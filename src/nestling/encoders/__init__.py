"""Text, images and stored vectors as elastic things, and the export of text models to stock form."""
