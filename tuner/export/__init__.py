"""What was trained, as a model that other programs load: merged, proved, written in their formats."""
