"""What an index holds at one moment: segments and the memtable, searched together."""
