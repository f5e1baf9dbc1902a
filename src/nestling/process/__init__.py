"""The running process: progress, timing, Ctrl-C, forks, packages that may be absent."""
