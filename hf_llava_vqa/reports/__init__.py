"""What a run shows to people: intervals, curves and the HTML page."""
