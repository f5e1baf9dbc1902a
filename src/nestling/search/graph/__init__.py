"""Graph-based approximate search over 2-bit codes: the codes, building the graph, beam search."""
