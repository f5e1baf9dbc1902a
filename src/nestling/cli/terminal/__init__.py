"""Output at the terminal: results, messages in the words of the command, interruption."""
