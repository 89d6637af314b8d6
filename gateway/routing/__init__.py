"""Where observations go: routes by kind, device, size, age and what a reading says (docs/routes.md)."""
