"""The promote step: select the best candidate of a sweep."""
