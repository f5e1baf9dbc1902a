"""What people give, checked at the door: numbers, arrays, ids of rows, paths."""
