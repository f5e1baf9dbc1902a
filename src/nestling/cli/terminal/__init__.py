"""What a person at the terminal sees: results, messages in the words of the command, interruption."""
