"""`callboard new`: writes the files of a slice, or an actor into one, in the style of the house."""
