"""Files of an index: its manifest, segments and write-ahead log, and what ids they hold."""
