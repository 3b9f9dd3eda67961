"""Reports for people: one HTML file with everything inside it, and the same figures as JSON."""
