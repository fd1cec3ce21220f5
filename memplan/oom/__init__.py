"""Messages of running out of memory, read and explained: which tensor was asked for, what was alive, what would fit."""
