"""(request, template, settings) → the objects to apply. Pure."""
