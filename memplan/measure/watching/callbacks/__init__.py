"""Watches as callbacks of other people's training loops. Each module needs the library it is named for."""
