"""How a reader says no to a kind of mail: the headers and the page of RFC 8058."""
