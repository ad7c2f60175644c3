"""How fast the best blocks of a catalogue are on one device, beside those that have a name."""
