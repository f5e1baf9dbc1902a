"""The script that wrote the golden files is no test."""

collect_ignore = ["write.py"]
