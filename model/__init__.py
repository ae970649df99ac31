"""What must hold: names, who owns them, what may and what must die; no counts, no addresses, no bytes."""
