"""How phantoms are drawn."""
