"""The preview step: print formatted training rows and data warnings."""
