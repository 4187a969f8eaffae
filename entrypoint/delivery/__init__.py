"""How mail leaves: what receivers' replies mean."""
