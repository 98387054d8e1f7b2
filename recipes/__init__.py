"""The shipped recipes (YAML), and the embedded base model and task data that they use."""
