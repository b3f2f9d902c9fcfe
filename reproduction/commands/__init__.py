"""What else one may ask of `reproduce`: one file a command."""
