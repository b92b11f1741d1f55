"""The command line ``soundguide``: one file per group of commands; what is slow to import is imported inside them."""
