"""The running process: progress, Ctrl-C, forks, packages that may be absent."""
