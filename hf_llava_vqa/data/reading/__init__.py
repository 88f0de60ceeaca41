"""What readers share: finding and parsing files, checking rows, missing images."""
