"""What `fastnorm bench` is made of: the grid of cells, a process for each library, results, tables and figures."""
