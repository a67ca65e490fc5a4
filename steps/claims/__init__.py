"""Check volume claims before pods mount them: settings and step."""
