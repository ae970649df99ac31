"""Whoever answers the choices, and the driver that holds model and implementation side by side after each operation."""
