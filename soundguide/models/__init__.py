"""Adapters that make concrete networks fit the four protocols."""
