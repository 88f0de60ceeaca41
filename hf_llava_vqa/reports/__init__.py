"""What a run shows to people: statistics, curves and the HTML page."""
