"""The kinds of stages that plans name, one file each: text, cost, building, searching, cutting."""
