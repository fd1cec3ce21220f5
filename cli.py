#!/usr/bin/env python3
"""Launcher for a checkout: `python cli.py estimate gpt2` is what the installed `memplan estimate gpt2` is."""

from memplan.__main__ import main

if __name__ == "__main__":
    main()
