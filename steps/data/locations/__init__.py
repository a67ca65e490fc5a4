"""Remote data: locations as users write them, the files they name, and reading these files by ranges."""
